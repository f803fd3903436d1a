#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/q4_layout.h"

// The weights of q4_layout.h in registers: each is code * scale + minimum, rounded once, which is
// the value that DequantizeRow gives (code * scale is exact). For tensor cores the codes alone are
// fragments, of fp16, which holds them exactly.

namespace asymserve::cuda {

struct Q4Scale {
  float scale;
  float minimum;
};

struct alignas(8) TwoWords {
  uint32_t of[2];
};

/// The scales of a block of columns for the rows of a group, as they are stored.
struct Q4ScaleWords {
  TwoWords bytes;   // Q4_0: d of all; Q4_K: s and t
  FourWords pairs;  // Q4_1: d and m; Q4_K: d and dm
};

__device__ __forceinline__ Q4ScaleWords LoadScales(const Q4Layout& layout, DType type,
                                                   const uint8_t* tile, int32_t block,
                                                   int32_t group) {
  Q4ScaleWords words = {};
  const uint8_t* scales = tile + layout.ScalesAt(block, group);
  if (type == DType::kQ4_1) {
    words.pairs = *reinterpret_cast<const FourWords*>(scales);
    return words;
  }
  words.bytes = *reinterpret_cast<const TwoWords*>(scales);
  if (type == DType::kQ4K) {
    words.pairs = *reinterpret_cast<const FourWords*>(tile + layout.SupersAt(block, group));
  }
  return words;
}

/// Byte `i` of a word, without a conversion of integers (below).
__device__ __forceinline__ float ByteAt(uint32_t word, int i) {
  constexpr uint32_t kUnit = 0x4B000000;  // 2^23
  const uint32_t bits = __byte_perm(word, kUnit, 0x7650u + static_cast<uint32_t>(i));
  return std::bit_cast<float>(bits) - std::bit_cast<float>(kUnit);
}

/// Of row group + 8 i.
__device__ __forceinline__ Q4Scale ScaleOf(DType type, const Q4ScaleWords& words, int i) {
  float low = 0;
  float high = 0;
  if (type == DType::kQ4_0) {
    UnpackHalves(words.bytes.of[i / 2], low, high);
    const float d = i % 2 == 0 ? low : high;
    return {d, -8.0f * d};
  }
  UnpackHalves(words.pairs.of[i], low, high);
  if (type == DType::kQ4_1) return {low, high};
  const int byte = i % 2 * 2;
  return {low * ByteAt(words.bytes.of[i / 2], byte),
          -(high * ByteAt(words.bytes.of[i / 2], byte + 1))};
}

/// The code in bits `bit` to `bit` + 3 of a word, `bit` being 0, 4, ... 28: without a conversion of
/// integers, as the mantissa of a number whose unit is at that bit, less that number.
__device__ __forceinline__ float CodeAt(uint32_t word, int bit) {
  const int place = bit % 16;
  const uint32_t unit = static_cast<uint32_t>(127 + 23 - place) << 23;
  const uint32_t bits = (word >> (bit - place) & 15u << place) | unit;
  return std::bit_cast<float>(bits) - std::bit_cast<float>(unit);
}

/// The codes of a lane's words of rows g and g + 8 of 16 as A fragments of mma.m16n8k16, less
/// kLess: the first of columns 0 to 15, the second of 16 to 31. The summed index of either is such
/// that 2 t and 2 t + 1 are columns 4 t and 4 t + 2 of it, 2 t + 8 and 2 t + 9 columns 4 t + 1 and
/// 4 t + 3: two codes lie 16 bits apart then.
template <int kLess>
__device__ __forceinline__ void CodeFragments(uint32_t upper, uint32_t lower, uint32_t (&a)[2][4]) {
  constexpr uint32_t k1024 = 0x6400;  // as fp16, whose unit is then its last bit
  constexpr uint32_t kMinus = 0xE400 + kLess;
  ASYMSERVE_UNROLL
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i % 2 == 0 ? upper : lower;
    ASYMSERVE_UNROLL
    for (int step = 0; step < 2; ++step) {
      const uint32_t codes =
          AndOr(word >> (4 * step + 8 * (i / 2)), 0x000F000Fu, k1024 << 16 | k1024);
      a[step][i] = AddHalves(codes, kMinus << 16 | kMinus);
    }
  }
}

}  // namespace asymserve::cuda
