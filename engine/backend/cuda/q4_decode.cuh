#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/q4_layout.h"

// The weights of q4_layout.h in registers: each is code * scale + minimum, rounded once, which is
// the value that DequantizeRow gives (code * scale is exact).

namespace asymserve::cuda {

struct Q4Scale {
  float scale;
  float minimum;
};

/// The scales of a block of columns for the rows of a group, as they are stored.
struct Q4ScaleWords {
  FourWords scales;  // Q4_0 and Q4_K: the first two
  FourWords supers;  // Q4_K
};

__device__ __forceinline__ Q4ScaleWords LoadScales(const Q4Layout& layout, DType type,
                                                   const uint8_t* tile, int32_t block,
                                                   int32_t group) {
  struct alignas(8) TwoWords {
    uint32_t of[2];
  };
  Q4ScaleWords words = {};
  const uint8_t* scales = tile + layout.ScalesAt(block, group);
  if (type == DType::kQ4_1) {
    words.scales = *reinterpret_cast<const FourWords*>(scales);
    return words;
  }
  const auto two = *reinterpret_cast<const TwoWords*>(scales);
  words.scales.of[0] = two.of[0];
  words.scales.of[1] = two.of[1];
  if (type == DType::kQ4K) {
    words.supers = *reinterpret_cast<const FourWords*>(tile + layout.SupersAt(block, group));
  }
  return words;
}

/// Of row group + 8 i.
__device__ __forceinline__ Q4Scale ScaleOf(DType type, const Q4ScaleWords& words, int i) {
  float low = 0;
  float high = 0;
  if (type == DType::kQ4_1) {
    UnpackHalves(words.scales.of[i], low, high);
    return {low, high};
  }
  if (type == DType::kQ4_0) {
    UnpackHalves(words.scales.of[i / 2], low, high);
    const float d = i % 2 == 0 ? low : high;
    return {d, -8.0f * d};
  }
  UnpackHalves(words.supers.of[i], low, high);
  const uint32_t pair = words.scales.of[i / 2] >> (i % 2 * 16);
  return {low * static_cast<float>(pair & 255u), -(high * static_cast<float>(pair >> 8 & 255u))};
}

/// The code in bits `bit` to `bit` + 3 of a word, `bit` being 0, 4, ... 28: without a conversion of
/// integers, as the mantissa of a number whose unit is at that bit, less that number.
__device__ __forceinline__ float CodeAt(uint32_t word, int bit) {
  const int place = bit % 16;
  const uint32_t unit = static_cast<uint32_t>(127 + 23 - place) << 23;
  const uint32_t bits = (word >> (bit - place) & 15u << place) | unit;
  return std::bit_cast<float>(bits) - std::bit_cast<float>(unit);
}

}  // namespace asymserve::cuda
