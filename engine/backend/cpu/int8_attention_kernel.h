#pragma once

#include <cstdint>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Attention over kInt8 blocks (kv/block_format.h) by integer dot products. Queries and weights are
/// fixed point numbers of two parts, x = unit * (128 * high + low): 15 and 14 bits, so that the
/// rounding is that of the codes. The scale of a token goes into its score, or into its weight.
template <typename V>
struct Int8Attention {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  using U8 = typename V::U8;
  static constexpr int kVectors = kPageTokens / 16;

  [[gnu::always_inline]] static I32 Join(I32 high, I32 low) {
    return V::AddInt(V::template ShiftLeftInt<7>(high), low);
  }

  // ---- Keys -----------------------------------------------------------------------------------

  /// The tile's queries as integers: high in [-127, 127], low in [-64, 63].
  static void LoadQueries(const AttentionTile& tile) {
    constexpr float kTop = 127.0f * 128.0f;
    const int32_t size = tile.head_size;
    for (int32_t row = 0; row < tile.rows; ++row) {
      const float* q = tile.scratch.queries + int64_t{row} * size;
      IntQuery& query = tile.scratch.int_queries[row];
      const float factor = Elementwise<V>::FixedPoint(q, size, kTop, &query.unit);
      I32 sums[2] = {V::SetInt(0), V::SetInt(0)};
      for (int32_t d = 0; d < size; d += 16) {
        const F32 x = V::LoadFirst(q + d, Elementwise<V>::Lanes(size - d));
        // A NaN would become a number that no sum can hold; its unit is NaN already.
        const I32 whole = factor > 0.0f ? V::ToInt(V::Mul(x, V::Set(factor))) : V::SetInt(0);
        const I32 high = Elementwise<V>::StoreSigned(whole, query.high + d, query.low + d);
        sums[0] = V::AddInt(sums[0], high);
        sums[1] = V::AddInt(sums[1], V::SubInt(whole, V::template ShiftLeftInt<7>(high)));
      }
      query.high_start = -128 * V::ReduceAddInt(sums[0]);
      query.low_start = -128 * V::ReduceAddInt(sums[1]);
    }
  }

  /// `next`: as many bytes that are read soon.
  template <int R>
  static void ScoreRows(const AttentionTile& tile, int32_t row, const uint8_t* block,
                        int32_t offset, const uint8_t* next) {
    const IntQuery* query = tile.scratch.int_queries + row;
    I32 high[R][kVectors];
    I32 low[R][kVectors];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        high[r.value][i.value] = V::SetInt(query[r.value].high_start);
        low[r.value][i.value] = V::SetInt(query[r.value].low_start);
      });
    });
    for (int32_t d = 0; d < tile.head_size; d += 4) {
      U8 codes[kVectors];
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        V::Prefetch(next + int64_t{d} * kPageTokens + 64 * i.value);
        codes[i.value] = V::LoadCodes(block + int64_t{d} * kPageTokens + 64 * i.value);
      });
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const U8 q_high = V::RepeatFour(query[r.value].high + d);
        const U8 q_low = V::RepeatFour(query[r.value].low + d);
        Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
          I32& sum_high = high[r.value][i.value];
          I32& sum_low = low[r.value][i.value];
          sum_high = V::template DotFours<8>(sum_high, codes[i.value], q_high);
          sum_low = V::template DotFours<8>(sum_low, codes[i.value], q_low);
        });
      });
    }
    const auto* scales =
        reinterpret_cast<const uint16_t*>(block + int64_t{tile.head_size} * kPageTokens);
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      float* scores = tile.scratch.weights + int64_t{row + r.value} * kGroupTokens + offset;
      const F32 unit = V::Set(query[r.value].unit);
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        const F32 scale = V::Mul(V::LoadHalf(scales + 16 * i.value), unit);
        const I32 sum = Join(high[r.value][i.value], low[r.value][i.value]);
        V::Store(scores + 16 * i.value, V::Mul(V::ToFloat(sum), scale));
      });
    });
  }

  /// Scores of all rows against a page's keys, to weights[row][offset ...].
  static void Scores(const AttentionTile& tile, const uint8_t* block, int32_t offset,
                     const uint8_t* next) {
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        ScoreRows<decltype(count)::value>(tile, row, block, offset, row == 0 ? next : block);
      });
    }
  }

  // ---- Values ---------------------------------------------------------------------------------

  /// Weights times the tokens' scales as integers; returns their unit, NaN when a weight or the
  /// scale of a visible token is.
  static float FixWeights(const AttentionTile& tile, int32_t row, const uint16_t* scales,
                          int32_t offset, int32_t visible) {
    const float* weights = tile.scratch.weights + int64_t{row} * kGroupTokens + offset;
    float scaled[kPageTokens];
    for (int i = 0; i < kVectors; ++i) {
      const F32 product = V::Mul(V::Load(weights + 16 * i), V::LoadHalf(scales + 16 * i));
      const int32_t lanes = visible - 16 * i;
      V::Store(scaled + 16 * i, V::KeepFirst(product,
                                             lanes < 0    ? 0
                                             : lanes > 16 ? 16
                                                          : lanes,
                                             V::Zero()));
    }
    float unit;
    const F32 inverse = V::Set(Elementwise<V>::FixedPoint(scaled, kPageTokens, kWeightTop, &unit));
    uint8_t* fixed = tile.scratch.fixed_weights + int64_t{row} * 2 * kGroupTokens + offset;
    for (int i = 0; i < kVectors; ++i) {
      Elementwise<V>::StoreSevenBits(V::ToInt(V::Mul(V::Load(scaled + 16 * i), inverse)),
                                     fixed + 16 * i, fixed + kGroupTokens + 16 * i);
    }
    return unit;
  }

  /// Adds 16 N channels from `channel` on of R rows' weighted values to their states' `area`.
  /// `next`: as many bytes that are read soon.
  template <int R, int N>
  static void ValueRows(const AttentionTile& tile, int32_t row, const uint8_t* block,
                        int32_t channel, int32_t offset, const float* units, int64_t area,
                        const uint8_t* next, float* states) {
    const int64_t stride = tile.state_floats;
    const uint8_t* fixed = tile.scratch.fixed_weights + int64_t{row} * 2 * kGroupTokens + offset;
    I32 high[R][N];
    I32 low[R][N];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        high[r.value][i.value] = V::SetInt(0);
        low[r.value][i.value] = V::SetInt(0);
      });
    });
    for (int32_t t = 0; t < kPageTokens; t += 4) {
      U8 codes[N];
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        const int64_t place = int64_t{t} * tile.head_size + 4 * (channel + 16 * i.value);
        V::Prefetch(next + place);
        codes[i.value] = V::LoadCodes(block + place);
      });
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const uint8_t* place = fixed + int64_t{r.value} * 2 * kGroupTokens + t;
        const U8 w_high = V::RepeatFour(place);
        const U8 w_low = V::RepeatFour(place + kGroupTokens);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          I32& sum_high = high[r.value][i.value];
          I32& sum_low = low[r.value][i.value];
          sum_high = V::template DotFours<7>(sum_high, w_high, codes[i.value]);
          sum_low = V::template DotFours<7>(sum_low, w_low, codes[i.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      const F32 unit = V::Set(units[row + r.value]);
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        float* sums = states + (row + r.value) * stride + area + channel + 16 * i.value;
        const I32 sum = Join(high[r.value][i.value], low[r.value][i.value]);
        V::Store(sums, V::Fma(V::ToFloat(sum), unit, V::Load(sums)));
      });
    });
  }

  /// Adds a page's values, weighted by weights[row][offset ...], to the states' `area`.
  static void Values(const AttentionTile& tile, const uint8_t* block, int32_t offset,
                     const int32_t* visible, int64_t area, const uint8_t* next, float* states) {
    const auto* scales =
        reinterpret_cast<const uint16_t*>(block + int64_t{tile.head_size} * kPageTokens);
    float units[kAttentionRows];
    for (int32_t row = 0; row < tile.rows; ++row) {
      units[row] = FixWeights(tile, row, scales, offset, visible[row]);
    }
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        const uint8_t* soon = row == 0 ? next : block;
        int32_t channel = 0;
        for (; channel + 64 <= tile.head_size; channel += 64) {
          ValueRows<kRows, 4>(tile, row, block, channel, offset, units, area, soon, states);
        }
        // The last vector of a head size such as 24 reads on: into its neighbours' codes and the
        // scales, for channels that nobody reads.
        for (; channel < tile.head_size; channel += 16) {
          ValueRows<kRows, 1>(tile, row, block, channel, offset, units, area, soon, states);
        }
      });
    }
  }
};

}  // namespace asymserve
