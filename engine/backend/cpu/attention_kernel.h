#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/int8_attention_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/plane_attention_kernel.h"
#include "engine/backend/cpu/scalar_attention_kernel.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Softmax attention over groups of pages (Milakov and Gimelshein 2018). Per row and group: scores
/// of all pages, weights against the group's largest score, values; Merge adds groups in order.
/// This file drives the codecs' kernels and holds that of fp16: scores summed over channels in
/// order, values over positions in order. What a row computes depends on its own position only:
/// slots after it are masked out of the scores and never reach a sum, whatever bits they hold.
template <typename V>
struct PagedAttention {
  using F32 = typename V::F32;
  using Int8 = Int8Attention<V>;
  using Planes = PlaneAttention<V>;
  static constexpr int kVectors = kPageTokens / 16;

  static int64_t Padded(int32_t head_size) { return (head_size + 15) / 16 * 16; }

  /// How many slots of page `page` row `row` of the tile sees.
  static int32_t Visible(const AttentionTile& tile, int32_t row, int32_t page) {
    const int32_t position = tile.positions[(tile.first_row + row) / tile.group];
    const int64_t left = int64_t{position} + 1 - int64_t{page} * kPageTokens;
    return left < 0 ? 0 : left > kPageTokens ? kPageTokens : static_cast<int32_t>(left);
  }

  static void Load(const AttentionTile& tile) {
    Planes::PrefetchTables(tile);
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(tile.head_size));
    for (int32_t row = 0; row < tile.rows; ++row) {
      const int32_t index = tile.first_row + row;
      const float* q = tile.q + index / tile.group * tile.q_stride +
                       int64_t{index % tile.group} * tile.head_size;
      float* scaled = tile.scratch.queries + int64_t{row} * tile.head_size;
      for (int32_t d = 0; d < tile.head_size; ++d) scaled[d] = q[d] * scale;
    }
    if (tile.int8_keys) Int8::LoadQueries(tile);
  }

  // ---- Scores ---------------------------------------------------------------------------------

  static const uint16_t* Halves(const KvBlock& block) {
    return reinterpret_cast<const uint16_t*>(block.bytes);
  }

  /// Asks for elements that are read soon.
  [[gnu::always_inline]] static void Prefetch(const uint16_t* p, int32_t elements) {
    constexpr int32_t kLine = 64 / sizeof(uint16_t);
    for (int32_t i = 0; i < elements; i += kLine) V::Prefetch(p + i);
  }

  /// Scores of R rows from `row` on against keys [D][64], to weights[row][offset ...]. `next`: as
  /// many bytes that are read soon.
  template <int R>
  static void ScoreRows(const AttentionTile& tile, int32_t row, const uint16_t* keys,
                        int32_t offset, const uint16_t* next) {
    F32 score[R][kVectors];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<kVectors>([&](auto i)
                           __attribute__((always_inline)) { score[r.value][i.value] = V::Zero(); });
    });
    const float* q = tile.scratch.queries + int64_t{row} * tile.head_size;
    for (int32_t d = 0; d < tile.head_size; ++d) {
      Prefetch(next + d * kPageTokens, kPageTokens);
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
        V::Store(tile.scratch.weights + (row + r.value) * kGroupTokens + offset + 16 * i.value,
                 score[r.value][i.value]);
      });
    });
  }

  static void HalfScores(const AttentionTile& tile, const uint16_t* keys, int32_t offset,
                         const uint16_t* next) {
    for (int32_t row = 0; row < tile.rows; row += V::kScoreRows) {
      WithCount<V::kScoreRows>(tile.rows - row, [&](auto count) {
        ScoreRows<decltype(count)::value>(tile, row, keys, offset, row == 0 ? next : keys);
      });
    }
  }

  static void Scores(const AttentionTile& tile, const KvPageBlocks* blocks, int32_t first_page,
                     int32_t pages) {
    int32_t planes = 0;
    for (int32_t page = 0; page < pages; ++page) {
      const KvBlock& block = blocks[page].key;
      if (block.codec != KvCodec::kPlanes) continue;
      const int32_t count = Planes::PlanesOf(tile.key->item, block);
      planes = count > planes ? count : planes;
    }
    if (planes > 0) {
      Planes::LoadTables(tile, first_page / tile.frame_pages * tile.frame_pages, planes);
    }
    for (int32_t page = 0; page < pages; ++page) {
      const KvBlock& block = blocks[page].key;
      const int32_t offset = page * kPageTokens;
      switch (block.codec) {
        case KvCodec::kHalf:
          HalfScores(tile, Halves(block), offset,
                     Halves(page + 1 < pages ? blocks[page + 1].key : blocks[0].value));
          break;
        case KvCodec::kInt8:
          Int8::Scores(tile, block.bytes, offset,
                       (page + 1 < pages ? blocks[page + 1].key : blocks[0].value).bytes);
          break;
        case KvCodec::kPlanes:
          Planes::Scores(tile, block, offset);
          break;
        case KvCodec::kMinMax:
        case KvCodec::kFitted:
          ScalarAttention<V>::Scores(tile, block.bytes, offset);
          break;
      }
    }
  }

  // ---- Softmax --------------------------------------------------------------------------------

  /// The scores of a page's slots from `visible` on become -infinity.
  static void Mask(int32_t visible, float* scores) {
    const F32 masked = V::Set(-__builtin_inff());
    for (int32_t i = 0; i < kPageTokens; i += 16) {
      const int32_t lanes = visible < i ? 0 : visible - i > 16 ? 16 : visible - i;
      V::Store(scores + i, V::KeepFirst(V::Load(scores + i), lanes, masked));
    }
  }

  /// Turns a row's scores into weights and begins its state. NaN scores do not count for the
  /// maximum but make the sum NaN.
  static void Softmax(const AttentionTile& tile, int32_t row, const KvPageBlocks* blocks,
                      int32_t first_page, int32_t pages, float* state) {
    float* weights = tile.scratch.weights + int64_t{row} * kGroupTokens;
    for (int64_t i = 0; i < tile.state_floats; i += 16) V::Store(state + i, V::Zero());
    state[0] = -__builtin_inff();
    if (Visible(tile, row, first_page) == 0) {
      for (int32_t t = 0; t < pages * kPageTokens; t += 16) V::Store(weights + t, V::Zero());
      return;
    }
    F32 largest = V::Set(-__builtin_inff());
    for (int32_t page = 0; page < pages; ++page) {
      float* scores = weights + page * kPageTokens;
      const int32_t visible = Visible(tile, row, first_page + page);
      if (visible < kPageTokens) Mask(visible, scores);
      for (int i = 0; i < kPageTokens; i += 16) largest = V::Larger(V::Load(scores + i), largest);
    }
    const float top = V::ReduceLargest(largest);
    F32 natural = V::Zero();
    F32 rotated = V::Zero();
    for (int32_t page = 0; page < pages; ++page) {
      F32 sum = V::Zero();
      for (int i = 0; i < kVectors; ++i) {
        float* place = weights + page * kPageTokens + 16 * i;
        const F32 weight = Elementwise<V>::Exp(V::Sub(V::Load(place), V::Set(top)));
        V::Store(place, weight);
        sum = V::Add(sum, weight);
      }
      F32& part = tile.rotated && blocks[page].value.sealed ? rotated : natural;
      part = V::Add(part, sum);
    }
    state[0] = top;
    V::Store(state + kStateSum, V::Add(natural, rotated));
    V::Store(state + kStateRotatedSum, rotated);
  }

  // ---- Values ---------------------------------------------------------------------------------

  /// Adds a page's values [64][D] to channels [channel, channel + 16 N) of R rows' states, or to 8
  /// channels. `area`: where the sums are in a state.
  template <int R, int N, bool kEight>
  static void ValueRows(const AttentionTile& tile, const int32_t* visible, int32_t row,
                        int32_t channel, const uint16_t* values, int32_t offset, int64_t area,
                        const uint16_t* next, float* states) {
    const int64_t stride = tile.state_floats;
    float* sums = states + row * stride + area + channel;
    const float* weights = tile.scratch.weights + int64_t{row} * kGroupTokens + offset;
    F32 sum[R][N];
    int32_t common = kPageTokens;
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      const int32_t seen = visible[row + r.value];
      common = seen < common ? seen : common;
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        sum[r.value][i.value] = V::Load(sums + r.value * stride + 16 * i.value);
      });
    });
    const auto load = [&](int32_t t, F32(&value)[N]) __attribute__((always_inline)) {
      const uint16_t* p = values + int64_t{t} * tile.head_size + channel;
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        value[i.value] = kEight ? V::LoadHalfFirst(p, 8) : V::LoadHalf(p + 16 * i.value);
      });
    };
    for (int32_t t = 0; t < common; ++t) {
      Prefetch(next + int64_t{t} * tile.head_size + channel, 16 * N);
      F32 value[N];
      load(t, value);
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const F32 weight = V::Set(weights[r.value * kGroupTokens + t]);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          sum[r.value][i.value] = V::Fma(weight, value[i.value], sum[r.value][i.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      for (int32_t t = common; t < visible[row + r.value]; ++t) {
        F32 value[N];
        load(t, value);
        const F32 weight = V::Set(weights[r.value * kGroupTokens + t]);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          sum[r.value][i.value] = V::Fma(weight, value[i.value], sum[r.value][i.value]);
        });
      }
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        V::Store(sums + r.value * stride + 16 * i.value, sum[r.value][i.value]);
      });
    });
  }

  static void HalfValues(const AttentionTile& tile, const int32_t* visible, const uint16_t* values,
                         int32_t offset, int64_t area, const uint16_t* next, float* states) {
    for (int32_t row = 0; row < tile.rows; row += V::kValueRows) {
      WithCount<V::kValueRows>(tile.rows - row, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        const uint16_t* soon = row == 0 ? next : values;
        int32_t channel = 0;
        for (; channel + 64 <= tile.head_size; channel += 64) {
          ValueRows<kRows, 4, false>(tile, visible, row, channel, values, offset, area, soon,
                                     states);
        }
        for (; channel + 16 <= tile.head_size; channel += 16) {
          ValueRows<kRows, 1, false>(tile, visible, row, channel, values, offset, area, soon,
                                     states);
        }
        if (channel < tile.head_size) {
          ValueRows<kRows, 1, true>(tile, visible, row, channel, values, offset, area, soon,
                                    states);
        }
      });
    }
  }

  static void Values(const AttentionTile& tile, const KvPageBlocks* blocks, int32_t first_page,
                     int32_t pages, float* states) {
    const int64_t rotated_area = kStateValue + Padded(tile.head_size);
    typename Planes::Pages sealed;
    for (int32_t page = 0; page < pages; ++page) {
      const KvBlock& block = blocks[page].value;
      const int32_t offset = page * kPageTokens;
      int32_t visible[kAttentionRows];
      for (int32_t row = 0; row < tile.rows; ++row) {
        visible[row] = Visible(tile, row, first_page + page);
      }
      switch (block.codec) {
        case KvCodec::kHalf:
          HalfValues(tile, visible, Halves(block), offset, kStateValue,
                     Halves(page + 1 < pages ? blocks[page + 1].value : block), states);
          break;
        case KvCodec::kInt8:
          Int8::Values(tile, block.bytes, offset, visible, kStateValue,
                       (page + 1 < pages ? blocks[page + 1].value : block).bytes, states);
          break;
        case KvCodec::kPlanes:
          sealed.block[sealed.count] = &block;
          sealed.offset[sealed.count++] = offset;
          break;
        case KvCodec::kMinMax:
        case KvCodec::kFitted:
          ScalarAttention<V>::Values(tile, block.bytes, offset,
                                     tile.rotated ? rotated_area : kStateValue, states);
          break;
      }
    }
    if (sealed.count > 0) Planes::Values(tile, sealed, rotated_area, states);
  }

  // ---- Groups ---------------------------------------------------------------------------------

  static void Scan(const AttentionTile& tile, const KvPageBlocks* blocks, int32_t first_page,
                   int32_t last_page, float* states) {
    const int32_t pages = last_page - first_page;
    for (int32_t page = 0; page < pages; ++page) {
      Planes::Prefetch(tile.key->item, blocks[page].key);
      Planes::Prefetch(tile.value->item, blocks[page].value);
    }
    Scores(tile, blocks, first_page, pages);
    for (int32_t row = 0; row < tile.rows; ++row) {
      Softmax(tile, row, blocks, first_page, pages, states + row * tile.state_floats);
    }
    Values(tile, blocks, first_page, pages, states);
  }

  static void Merge(const AttentionTile& tile, int32_t first_page, float* states,
                    const float* later) {
    const int64_t stride = tile.state_floats;
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

  /// Adds R rows' rotated values, turned back, to their others.
  template <int R>
  static void TurnBack(const AttentionTile& tile, float* states) {
    const KvHead& value = *tile.value;
    const int32_t size = tile.head_size;
    const int64_t padded = Padded(size);
    float rotated[R][kMaxHeadSize];
    float turned[R][kMaxHeadSize];
    for (int r = 0; r < R; ++r) {
      std::memcpy(rotated[r], states + r * tile.state_floats + kStateValue + padded,
                  sizeof(float) * static_cast<size_t>(padded));
      if (value.item.codec == KvCodec::kFitted) Hadamard(rotated[r], size);
    }
    const bool planes = value.item.codec == KvCodec::kPlanes;
    if (planes) {
      Planes::template TimesMatrix<R>(rotated[0], value.planes.transform, size, turned[0]);
    }
    for (int r = 0; r < R; ++r) {
      float* state = states + r * tile.state_floats;
      const float* natural = planes ? turned[r] : rotated[r];
      const F32 weight = V::Set(V::ReduceAdd(V::Load(state + kStateRotatedSum)));
      for (int64_t d = 0; d < padded; d += 16) {
        F32 sum = V::Add(V::Load(state + kStateValue + d), V::Load(natural + d));
        if (planes) sum = V::Fma(weight, V::Load(value.planes.mean + d), sum);
        V::Store(state + kStateValue + d, sum);
      }
    }
  }

  /// Overwrites the states.
  static void Finish(const AttentionTile& tile, float* states) {
    for (int32_t row = 0; tile.rotated && row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        TurnBack<decltype(count)::value>(tile, states + row * tile.state_floats);
      });
    }
    for (int32_t row = 0; row < tile.rows; ++row) {
      const int32_t index = tile.first_row + row;
      float* out = tile.out + index / tile.group * tile.out_stride +
                   int64_t{index % tile.group} * tile.head_size;
      float* state = states + row * tile.state_floats;
      const F32 sum = V::Set(V::ReduceAdd(V::Load(state + kStateSum)));
      for (int32_t d = 0; d < tile.head_size; d += 16) {
        const int lanes = Elementwise<V>::Lanes(tile.head_size - d);
        V::StoreFirst(out + d, V::Div(V::Load(state + kStateValue + d), sum), lanes);
      }
    }
  }
};

}  // namespace asymserve
