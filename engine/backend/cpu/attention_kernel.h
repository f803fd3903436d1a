#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Online softmax (Milakov and Gimelshein 2018) over pages of 64 positions. Per row: scores of a
/// page as four vectors, summed over channels in order; rescale once a page; values added in
/// position order. What a row computes depends on its own position only: slots after it are
/// masked out of the scores and never multiplied into the values, whatever bits they hold.
template <typename V>
struct PagedAttention {
  using F32 = typename V::F32;
  static constexpr int kVectors = kPageTokens / 16;

  static int64_t StateFloats(int32_t head_size) { return kStateValue + (head_size + 15) / 16 * 16; }

  /// How many slots of page `page` row `row` of the tile sees.
  static int32_t Visible(const AttentionTile& tile, int32_t row, int32_t page) {
    const int32_t position = tile.positions[(tile.first_row + row) / tile.group];
    const int64_t left = int64_t{position} + 1 - int64_t{page} * kPageTokens;
    return left < 0 ? 0 : left > kPageTokens ? kPageTokens : static_cast<int32_t>(left);
  }

  static void Load(const AttentionTile& tile) {
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(tile.head_size));
    for (int32_t row = 0; row < tile.rows; ++row) {
      const int32_t index = tile.first_row + row;
      const float* q = tile.q + index / tile.group * tile.q_stride +
                       int64_t{index % tile.group} * tile.head_size;
      float* scaled = tile.queries + int64_t{row} * tile.head_size;
      for (int32_t d = 0; d < tile.head_size; ++d) scaled[d] = q[d] * scale;
    }
  }

  /// Scores of R rows from `row` on against a K block, to tile.weights.
  template <int R>
  static void Scores(const AttentionTile& tile, int32_t row, const uint16_t* keys) {
    F32 score[R][kVectors];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<kVectors>([&](auto i)
                           __attribute__((always_inline)) { score[r.value][i.value] = V::Zero(); });
    });
    const float* q = tile.queries + int64_t{row} * tile.head_size;
    for (int32_t d = 0; d < tile.head_size; ++d) {
      F32 key[kVectors];
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        key[i.value] = V::LoadHalf(keys + d * kPageTokens + 16 * i.value);
      });
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const F32 query = V::Set(q[r.value * tile.head_size + d]);
        Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
          score[r.value][i.value] = V::Fma(query, key[i.value], score[r.value][i.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        V::Store(tile.weights + (row + r.value) * kPageTokens + 16 * i.value,
                 score[r.value][i.value]);
      });
    });
  }

  /// Turns a row's first `visible` scores into weights; returns the factor for what was summed
  /// before. NaN scores do not count for the maximum but make the sum NaN.
  static float Softmax(float* weights, int32_t visible, float* state) {
    const F32 masked = V::Set(-__builtin_inff());
    F32 score[kVectors];
    F32 largest = V::Set(state[0]);
    for (int i = 0; i < kVectors; ++i) {
      const int lanes = visible - 16 * i;
      score[i] = V::KeepFirst(V::Load(weights + 16 * i),
                              lanes < 0    ? 0
                              : lanes > 16 ? 16
                                           : lanes,
                              masked);
      largest = V::Larger(score[i], largest);
    }
    const float top = V::ReduceLargest(largest);
    const F32 factor = Elementwise<V>::Exp(V::Set(state[0] - top));
    F32 sum = V::Mul(V::Load(state + kStateSum), factor);
    for (int i = 0; i < kVectors; ++i) {
      const F32 weight = Elementwise<V>::Exp(V::Sub(score[i], V::Set(top)));
      V::Store(weights + 16 * i, weight);
      sum = V::Add(sum, weight);
    }
    V::Store(state + kStateSum, sum);
    state[0] = top;
    float result[16];
    V::Store(result, factor);
    return result[0];
  }

  /// What Values needs to know of the rows of a tile on one page.
  struct PageRows {
    float factor[kAttentionRows];
    int32_t visible[kAttentionRows];
  };

  /// Adds a V block to channels [16 c, 16 (c + N)) of R rows, or to the 8 channels from 16 c on.
  template <int R, int N, bool kEight>
  static void Values(const AttentionTile& tile, const PageRows& page, int32_t row, int32_t channel,
                     const uint16_t* values, float* states) {
    const int64_t stride = StateFloats(tile.head_size);
    float* sums = states + row * stride + kStateValue + channel;
    const float* weights = tile.weights + int64_t{row} * kPageTokens;
    F32 sum[R][N];
    int32_t common = kPageTokens;
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      const F32 factor = V::Set(page.factor[row + r.value]);
      const int32_t visible = page.visible[row + r.value];
      common = visible < common ? visible : common;
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        sum[r.value][i.value] = V::Mul(V::Load(sums + r.value * stride + 16 * i.value), factor);
      });
    });
    const auto load = [&](int32_t t, F32(&value)[N]) __attribute__((always_inline)) {
      const uint16_t* p = values + int64_t{t} * tile.head_size + channel;
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        value[i.value] = kEight ? V::LoadHalfFirst(p, 8) : V::LoadHalf(p + 16 * i.value);
      });
    };
    for (int32_t t = 0; t < common; ++t) {
      F32 value[N];
      load(t, value);
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const F32 weight = V::Set(weights[r.value * kPageTokens + t]);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          sum[r.value][i.value] = V::Fma(weight, value[i.value], sum[r.value][i.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      for (int32_t t = common; t < page.visible[row + r.value]; ++t) {
        F32 value[N];
        load(t, value);
        const F32 weight = V::Set(weights[r.value * kPageTokens + t]);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          sum[r.value][i.value] = V::Fma(weight, value[i.value], sum[r.value][i.value]);
        });
      }
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        V::Store(sums + r.value * stride + 16 * i.value, sum[r.value][i.value]);
      });
    });
  }

  static void ScanPage(const AttentionTile& tile, int32_t index, float* states) {
    const uint16_t* record =
        tile.arena + static_cast<int64_t>(tile.pages[index]) * tile.record_elements;
    const int64_t stride = StateFloats(tile.head_size);
    PageRows page;
    for (int32_t row = 0; row < tile.rows; row += V::kScoreRows) {
      const int32_t left = tile.rows - row;
      WithCount<V::kScoreRows>(left, [&](auto count) {
        Scores<decltype(count)::value>(tile, row, record + tile.key_offset);
      });
    }
    for (int32_t row = 0; row < tile.rows; ++row) {
      page.visible[row] = Visible(tile, row, index);
      page.factor[row] = 1.0f;
      if (page.visible[row] == 0) continue;
      page.factor[row] =
          Softmax(tile.weights + row * kPageTokens, page.visible[row], states + row * stride);
    }
    const uint16_t* values = record + tile.value_offset;
    for (int32_t row = 0; row < tile.rows; row += V::kValueRows) {
      WithCount<V::kValueRows>(tile.rows - row, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        int32_t channel = 0;
        for (; channel + 64 <= tile.head_size; channel += 64) {
          Values<kRows, 4, false>(tile, page, row, channel, values, states);
        }
        for (; channel + 16 <= tile.head_size; channel += 16) {
          Values<kRows, 1, false>(tile, page, row, channel, values, states);
        }
        if (channel < tile.head_size) {
          Values<kRows, 1, true>(tile, page, row, channel, values, states);
        }
      });
    }
  }

  static void Scan(const AttentionTile& tile, int32_t first_page, int32_t last_page,
                   float* states) {
    const int64_t stride = StateFloats(tile.head_size);
    for (int32_t row = 0; row < tile.rows; ++row) {
      float* state = states + row * stride;
      for (int64_t i = 0; i < stride; i += 16) V::Store(state + i, V::Zero());
      state[0] = -__builtin_inff();
    }
    for (int32_t page = first_page; page < last_page; ++page) ScanPage(tile, page, states);
  }

  static void Merge(const AttentionTile& tile, int32_t first_page, float* states,
                    const float* later) {
    const int64_t stride = StateFloats(tile.head_size);
    for (int32_t row = 0; row < tile.rows; ++row) {
      if (Visible(tile, row, first_page) == 0) continue;
      float* state = states + row * stride;
      const float* other = later + row * stride;
      const float top = state[0] > other[0] ? state[0] : other[0];
      const F32 factor = Elementwise<V>::Exp(V::Set(state[0] - top));
      const F32 other_factor = Elementwise<V>::Exp(V::Set(other[0] - top));
      state[0] = top;
      for (int64_t i = kStateSum; i < stride; i += 16) {
        const F32 scaled = V::Mul(V::Load(other + i), other_factor);
        V::Store(state + i, V::Fma(V::Load(state + i), factor, scaled));
      }
    }
  }

  static void Finish(const AttentionTile& tile, const float* states) {
    const int64_t stride = StateFloats(tile.head_size);
    for (int32_t row = 0; row < tile.rows; ++row) {
      const int32_t index = tile.first_row + row;
      float* out = tile.out + index / tile.group * tile.out_stride +
                   int64_t{index % tile.group} * tile.head_size;
      const float* state = states + row * stride;
      const F32 sum = V::Set(V::ReduceAdd(V::Load(state + kStateSum)));
      for (int32_t d = 0; d < tile.head_size; d += 16) {
        const int lanes = Elementwise<V>::Lanes(tile.head_size - d);
        V::StoreFirst(out + d, V::Div(V::Load(state + kStateValue + d), sum), lanes);
      }
    }
  }
};

}  // namespace asymserve
