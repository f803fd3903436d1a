#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/kv_decode_kernel.h"
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

  static int64_t Padded(int32_t head_size) { return (head_size + 15) / 16 * 16; }
  static int64_t StateFloats(const AttentionTile& tile) {
    return kStateValue + (tile.rotated ? 2 : 1) * Padded(tile.head_size);
  }

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
      float* scaled = tile.scratch.queries + int64_t{row} * tile.head_size;
      for (int32_t d = 0; d < tile.head_size; ++d) scaled[d] = q[d] * scale;
    }
  }

  /// Rotates q to the start of a frame, as keys were before they were encoded.
  static void RotateBack(const AttentionTile& tile, int32_t position, float* q) {
    const int32_t half = tile.head_size / 2;
    const float* cosine = tile.rope + int64_t{position} * tile.head_size;
    const float* sine = cosine + half;
    const int32_t step = tile.interleaved ? 2 : 1;
    const int32_t other = tile.interleaved ? 1 : half;
    for (int32_t i = 0; i < half; ++i) {
      const float a = q[i * step];
      const float b = q[i * step + other];
      q[i * step] = a * cosine[i] + b * sine[i];
      q[i * step + other] = b * cosine[i] - a * sine[i];
    }
  }

  /// out [Dp] = x [D] times matrix [D][Dp], summed over the rows in order.
  static void TimesMatrix(const float* x, const float* matrix, int32_t n, float* out) {
    const int64_t padded = Padded(n);
    for (int64_t j = 0; j < padded; j += 16) {
      F32 sum = V::Zero();
      for (int32_t i = 0; i < n; ++i) {
        sum = V::Fma(V::Set(x[i]), V::Load(matrix + i * padded + j), sum);
      }
      V::Store(out + j, sum);
    }
  }

  /// The rows' queries for kPlanes keys of the frame that starts at page `page`.
  static void LoadFrame(const AttentionTile& tile, int32_t page) {
    const PlaneTables& planes = tile.key->planes;
    const int32_t size = tile.head_size;
    for (int32_t row = 0; row < tile.rows; ++row) {
      float rotated[kMaxHeadSize];
      float transformed[kMaxHeadSize];
      std::memcpy(rotated, tile.scratch.queries + int64_t{row} * size,
                  sizeof(float) * static_cast<size_t>(size));
      RotateBack(tile, page * kPageTokens, rotated);
      TimesMatrix(rotated, planes.transform, size, transformed);
      std::memcpy(tile.scratch.frame_queries + int64_t{row} * size, transformed,
                  sizeof(float) * static_cast<size_t>(size));
      F32 sum = V::Zero();
      for (int32_t d = 0; d < size; d += 16) {
        const F32 part = V::LoadFirst(rotated + d, Elementwise<V>::Lanes(size - d));
        sum = V::Fma(part, V::Load(planes.mean + d), sum);
      }
      tile.scratch.bias[row] = V::ReduceAdd(sum);
    }
  }

  static F32 LoadElement(const uint16_t* p) { return V::LoadHalf(p); }
  static F32 LoadElement(const float* p) { return V::Load(p); }
  static F32 LoadEight(const uint16_t* p) { return V::LoadHalfFirst(p, 8); }
  static F32 LoadEight(const float* p) { return V::LoadFirst(p, 8); }

  /// Scores of R rows from `row` on against keys [D][64], to the weights. `bias` [rows] or null.
  template <int R, typename Element>
  static void Scores(const AttentionTile& tile, int32_t row, const float* queries,
                     const float* bias, const Element* keys) {
    F32 score[R][kVectors];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      const F32 start = V::Set(bias == nullptr ? 0.0f : bias[row + r.value]);
      Unroll<kVectors>([&](auto i)
                           __attribute__((always_inline)) { score[r.value][i.value] = start; });
    });
    const float* q = queries + int64_t{row} * tile.head_size;
    for (int32_t d = 0; d < tile.head_size; ++d) {
      F32 key[kVectors];
      Unroll<kVectors>([&](auto i) __attribute__((always_inline)) {
        key[i.value] = LoadElement(keys + d * kPageTokens + 16 * i.value);
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
        V::Store(tile.scratch.weights + (row + r.value) * kPageTokens + 16 * i.value,
                 score[r.value][i.value]);
      });
    });
  }

  /// Turns a row's first `visible` scores into weights; returns the factor for what was summed
  /// before. NaN scores do not count for the maximum but make the sum NaN.
  /// `rotated`, `sealed`: whether the state has rotated values, and whether this page's are.
  static float Softmax(float* weights, int32_t visible, float* state, bool rotated, bool sealed) {
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
    if (rotated) {
      F32 part = V::Mul(V::Load(state + kStateRotatedSum), factor);
      for (int i = 0; sealed && i < kVectors; ++i) {
        part = V::Add(part, V::Load(weights + 16 * i));
      }
      V::Store(state + kStateRotatedSum, part);
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

  /// Adds values [64][D] to channels [16 c, 16 (c + N)) of R rows, or to the 8 channels from 16 c
  /// on. `area`: where the sums are in a state.
  template <int R, int N, bool kEight, typename Element>
  static void Values(const AttentionTile& tile, const PageRows& page, int32_t row, int32_t channel,
                     const Element* values, int64_t area, float* states) {
    const int64_t stride = StateFloats(tile);
    float* sums = states + row * stride + area + channel;
    const float* weights = tile.scratch.weights + int64_t{row} * kPageTokens;
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
      const Element* p = values + int64_t{t} * tile.head_size + channel;
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        value[i.value] = kEight ? LoadEight(p) : LoadElement(p + 16 * i.value);
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

  template <typename Element>
  static void AllScores(const AttentionTile& tile, const float* queries, const float* bias,
                        const Element* keys) {
    for (int32_t row = 0; row < tile.rows; row += V::kScoreRows) {
      WithCount<V::kScoreRows>(tile.rows - row, [&](auto count) {
        Scores<decltype(count)::value>(tile, row, queries, bias, keys);
      });
    }
  }

  template <typename Element>
  static void AllValues(const AttentionTile& tile, const PageRows& page, const Element* values,
                        int64_t area, float* states) {
    for (int32_t row = 0; row < tile.rows; row += V::kValueRows) {
      WithCount<V::kValueRows>(tile.rows - row, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        int32_t channel = 0;
        for (; channel + 64 <= tile.head_size; channel += 64) {
          Values<kRows, 4, false>(tile, page, row, channel, values, area, states);
        }
        for (; channel + 16 <= tile.head_size; channel += 16) {
          Values<kRows, 1, false>(tile, page, row, channel, values, area, states);
        }
        if (channel < tile.head_size) {
          Values<kRows, 1, true>(tile, page, row, channel, values, area, states);
        }
      });
    }
  }

  static void ScanKeys(const AttentionTile& tile, const KvBlock& block, bool* frame_loaded,
                       int32_t page) {
    const AttentionScratch& scratch = tile.scratch;
    if (!block.sealed && tile.key->near == KvCodec::kHalf) {
      const auto* keys = reinterpret_cast<const uint16_t*>(block.bytes);
      return AllScores(tile, scratch.queries, nullptr, keys);
    }
    KvDecode<V>::Block(*tile.key, KvTensor::kKey, tile.head_size, block, scratch.keys);
    if (!block.sealed || tile.key->item.codec != KvCodec::kPlanes) {
      return AllScores(tile, scratch.queries, nullptr, scratch.keys);
    }
    if (!*frame_loaded) LoadFrame(tile, page / tile.frame_pages * tile.frame_pages);
    *frame_loaded = true;
    AllScores(tile, scratch.frame_queries, scratch.bias, scratch.keys);
  }

  /// Multiplies the sums of values at `area` of every row by its factor.
  static void Rescale(const AttentionTile& tile, const PageRows& page, int64_t area,
                      float* states) {
    const int64_t stride = StateFloats(tile);
    for (int32_t row = 0; row < tile.rows; ++row) {
      const F32 factor = V::Set(page.factor[row]);
      float* sums = states + row * stride + area;
      for (int64_t i = 0; i < Padded(tile.head_size); i += 16) {
        V::Store(sums + i, V::Mul(V::Load(sums + i), factor));
      }
    }
  }

  static void ScanValues(const AttentionTile& tile, const KvBlock& block, const PageRows& page,
                         float* states) {
    const int64_t rotated_area = kStateValue + Padded(tile.head_size);
    if (!block.sealed && tile.value->near == KvCodec::kHalf) {
      const auto* values = reinterpret_cast<const uint16_t*>(block.bytes);
      AllValues(tile, page, values, kStateValue, states);
    } else {
      KvDecode<V>::Block(*tile.value, KvTensor::kValue, tile.head_size, block, tile.scratch.values);
      AllValues(tile, page, tile.scratch.values,
                tile.rotated && block.sealed ? rotated_area : kStateValue, states);
    }
    if (tile.rotated) Rescale(tile, page, block.sealed ? kStateValue : rotated_area, states);
  }

  static void ScanPage(const AttentionTile& tile, const KvPageBlocks& blocks, int32_t index,
                       bool* frame_loaded, float* states) {
    const int64_t stride = StateFloats(tile);
    PageRows page;  // NOLINT(cppcoreguidelines-pro-type-member-init): written below
    ScanKeys(tile, blocks.key, frame_loaded, index);
    for (int32_t row = 0; row < tile.rows; ++row) {
      page.visible[row] = Visible(tile, row, index);
      page.factor[row] = 1.0f;
      if (page.visible[row] == 0) continue;
      page.factor[row] = Softmax(tile.scratch.weights + row * kPageTokens, page.visible[row],
                                 states + row * stride, tile.rotated, blocks.value.sealed);
    }
    ScanValues(tile, blocks.value, page, states);
  }

  static void Scan(const AttentionTile& tile, const KvPageBlocks* blocks, int32_t first_page,
                   int32_t last_page, float* states) {
    const int64_t stride = StateFloats(tile);
    for (int32_t row = 0; row < tile.rows; ++row) {
      float* state = states + row * stride;
      for (int64_t i = 0; i < stride; i += 16) V::Store(state + i, V::Zero());
      state[0] = -__builtin_inff();
    }
    bool frame_loaded = false;
    for (int32_t page = first_page; page < last_page; ++page) {
      ScanPage(tile, blocks[page - first_page], page, &frame_loaded, states);
    }
  }

  static void Merge(const AttentionTile& tile, int32_t first_page, float* states,
                    const float* later) {
    const int64_t stride = StateFloats(tile);
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

  /// Adds a row's rotated values, turned back, to its others.
  static void TurnBack(const AttentionTile& tile, float* state) {
    const int32_t size = tile.head_size;
    const int64_t padded = Padded(size);
    float* rotated = state + kStateValue + padded;
    float natural[kMaxHeadSize];
    if (tile.value->item.codec == KvCodec::kFitted) {
      std::memcpy(natural, rotated, sizeof(float) * static_cast<size_t>(padded));
      Hadamard(natural, size);
    } else {
      TimesMatrix(rotated, tile.value->planes.transform, size, natural);
    }
    const F32 weight = V::Set(V::ReduceAdd(V::Load(state + kStateRotatedSum)));
    for (int64_t d = 0; d < padded; d += 16) {
      F32 sum = V::Add(V::Load(state + kStateValue + d), V::Load(natural + d));
      if (tile.value->item.codec == KvCodec::kPlanes) {
        sum = V::Fma(weight, V::Load(tile.value->planes.mean + d), sum);
      }
      V::Store(state + kStateValue + d, sum);
    }
  }

  /// Overwrites the states.
  static void Finish(const AttentionTile& tile, float* states) {
    const int64_t stride = StateFloats(tile);
    for (int32_t row = 0; row < tile.rows; ++row) {
      const int32_t index = tile.first_row + row;
      float* out = tile.out + index / tile.group * tile.out_stride +
                   int64_t{index % tile.group} * tile.head_size;
      float* state = states + row * stride;
      if (tile.rotated) TurnBack(tile, state);
      const F32 sum = V::Set(V::ReduceAdd(V::Load(state + kStateSum)));
      for (int32_t d = 0; d < tile.head_size; d += 16) {
        const int lanes = Elementwise<V>::Lanes(tile.head_size - d);
        V::StoreFirst(out + d, V::Div(V::Load(state + kStateValue + d), sum), lanes);
      }
    }
  }
};

}  // namespace asymserve
