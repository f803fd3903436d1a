#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/packed_format.h"
#include "engine/backend/cpu/unroll.h"

// How a kernel reads block `b` (32 inputs) of a packed panel: one struct per format, over an
// instruction set V. A format says kBits (width of its codes), kHalves (2: a scale for each 16
// inputs), kZeroPoint (subtracted from each code, a power of two or 0), kHasMin (an addend per
// column).

namespace asymserve {

/// Block b of a panel: w[n][4 j + i] = scale[half][n] * (code - kZeroPoint) + min[n].
template <typename V>
struct WeightBlock {
  typename V::U8 tiles[kTilesPerBlock];
  typename V::F32 scale[2];
  typename V::F32 min;
};

/// Tile j of the low nibbles in `codes`, j + 4 of the high ones.
template <typename V>
[[gnu::always_inline]] inline void LoadNibbles(const uint8_t* codes, WeightBlock<V>& block) {
  Unroll<4>([&](auto j) __attribute__((always_inline)) {
    const typename V::U8 raw = V::LoadCodes(codes + j.value * kTileBytes);
    block.tiles[j.value] = V::template Field<0, 0x0F>(raw);
    block.tiles[j.value + 4] = V::template Field<4, 0x0F>(raw);
  });
}

template <typename V>
struct Q4_0Format : Q4_0Layout {
  static constexpr int kBits = 4, kHalves = 1, kZeroPoint = 8;
  static constexpr bool kHasMin = false;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    LoadNibbles<V>(codes + b * kCodeBytes, block);
    block.scale[0] = V::LoadHalf(reinterpret_cast<const uint16_t*>(scales + b * kScaleBytes));
  }
};

template <typename V>
struct Q4_1Format : Q4_1Layout {
  static constexpr int kBits = 4, kHalves = 1, kZeroPoint = 0;
  static constexpr bool kHasMin = true;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    LoadNibbles<V>(codes + b * kCodeBytes, block);
    const auto* pair = reinterpret_cast<const uint16_t*>(scales + b * kScaleBytes);
    block.scale[0] = V::LoadHalf(pair);
    block.min = V::LoadHalf(pair + 16);
  }
};

template <typename V>
struct Q8_0Format : Q8_0Layout {
  static constexpr int kBits = 8, kHalves = 1, kZeroPoint = 128;
  static constexpr bool kHasMin = false;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    Unroll<8>([&](auto j) __attribute__((always_inline)) {
      block.tiles[j.value] = V::LoadCodes(codes + b * kCodeBytes + j.value * kTileBytes);
    });
    block.scale[0] = V::LoadHalf(reinterpret_cast<const uint16_t*>(scales + b * kScaleBytes));
  }
};

/// Q4_K's and Q5_K's. d * scale has at most 17 significant bits: exact.
template <typename V>
[[gnu::always_inline]] inline void LoadMinScales(const uint8_t* scales, int64_t b,
                                                 WeightBlock<V>& block) {
  const auto* super = reinterpret_cast<const MinScales*>(scales) + b / kSubBlocks;
  const int64_t sub = b % kSubBlocks;
  block.scale[0] = V::Mul(V::LoadHalf(super->d), V::LoadUint8(super->scale[sub]));
  block.min = V::Sub(V::Zero(), V::Mul(V::LoadHalf(super->dmin), V::LoadUint8(super->min[sub])));
}

template <typename V>
struct Q4KFormat : Q4KLayout {
  static constexpr int kBits = 4, kHalves = 1, kZeroPoint = 0;
  static constexpr bool kHasMin = true;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    LoadNibbles<V>(codes + b * kSubCodeBytes, block);
    LoadMinScales<V>(scales, b, block);
  }
};

template <typename V>
struct Q5KFormat : Q5KLayout {
  static constexpr int kBits = 5, kHalves = 1, kZeroPoint = 0;
  static constexpr bool kHasMin = true;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    LoadNibbles<V>(codes + b * kSubCodeBytes, block);
    const typename V::U8 fifth = V::LoadCodes(codes + b * kSubCodeBytes + 4 * kTileBytes);
    Unroll<8>([&](auto j) __attribute__((always_inline)) {
      block.tiles[j.value] =
          V::Or(block.tiles[j.value], V::template Field<j.value - 4, 0x10>(fifth));
    });
    LoadMinScales<V>(scales, b, block);
  }
};

template <typename V>
struct Q6KFormat : Q6KLayout {
  static constexpr int kBits = 6, kHalves = 2, kZeroPoint = 32;
  static constexpr bool kHasMin = false;
  [[gnu::always_inline]] static void Load(const uint8_t* codes, const uint8_t* scales, int64_t b,
                                          WeightBlock<V>& block) {
    LoadNibbles<V>(codes + b * kSubCodeBytes, block);
    const uint8_t* upper = codes + b * kSubCodeBytes + 4 * kTileBytes;
    const typename V::U8 halves[2] = {V::LoadCodes(upper), V::LoadCodes(upper + kTileBytes)};
    Unroll<8>([&](auto j) __attribute__((always_inline)) {
      block.tiles[j.value] =
          V::Or(block.tiles[j.value],
                V::template Field<2 * (j.value % 4) - 4, 0x30>(halves[j.value / 4]));
    });
    const auto* super = reinterpret_cast<const HalfScales*>(scales) + b / kSubBlocks;
    const int64_t sub = b % kSubBlocks;
    const typename V::F32 d = V::LoadHalf(super->d);
    block.scale[0] = V::Mul(d, V::LoadInt8(super->scale[sub][0]));
    block.scale[1] = V::Mul(d, V::LoadInt8(super->scale[sub][1]));
  }
};

}  // namespace asymserve
