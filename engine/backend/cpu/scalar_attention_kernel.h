#pragma once

#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"
#include "engine/kv/quantizer.h"

namespace asymserve {

/// Attention over kMinMax and kFitted blocks (kv/block_format.h) by integer dot products, the
/// scales folded into the other factor. Keys and values are the same problem: rows (channels, or
/// tokens) of codes of elements (tokens, or channels), a factor w per row (a query's channel, or a
/// weight), and
///   out[e] = sum over rows of w (zero + scale code) = sum of (w scale) code + sum of w zero
/// with a scale and a zero per row and group of elements. w scale goes as fixed point of two parts,
/// unit * (128 high + low).
template <typename V>
struct ScalarAttention {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  using U8 = typename V::U8;

  /// A block's shape and its levels as floats, by group, then row.
  struct Block {
    const uint8_t* codes;
    int64_t row_bytes;
    int32_t rows;
    int32_t elements;
    int32_t group_size;
    int32_t groups;
    float scale[kMaxScalarLevels];
    float zero[kMaxScalarLevels];
  };

  static void Load(const KvItem& item, KvTensor tensor, int32_t head_size, const uint8_t* bytes,
                   Block& block) {
    const ScalarBlock layout = ScalarBlockOf(item, tensor, head_size);
    const bool key = tensor == KvTensor::kKey;
    const bool fitted = item.codec == KvCodec::kFitted;
    block.codes = bytes;
    block.row_bytes = layout.row_bytes;
    block.rows = key ? head_size : kPageTokens;
    block.elements = key ? kPageTokens : head_size;
    block.group_size = fitted ? kFittedGroup : kMinMaxGroup;
    block.groups = GroupsOf(block.elements, block.group_size);
    if (fitted) {
      LoadFitted(item, layout, bytes, block);
    } else {
      LoadMinMax(layout, bytes, block);
    }
  }

  static void LoadMinMax(const ScalarBlock& layout, const uint8_t* bytes, Block& block) {
    float pairs[2 * kMaxScalarLevels];
    const int32_t count = block.rows * block.groups;
    for (int32_t i = 0; i < 2 * count; i += 16) {
      const auto* halves = reinterpret_cast<const uint16_t*>(bytes + layout.scales) + i;
      V::Store(pairs + i, V::LoadHalfFirst(halves, Elementwise<V>::Lanes(2 * count - i)));
    }
    for (int32_t row = 0; row < block.rows; ++row) {
      for (int32_t g = 0; g < block.groups; ++g) {
        const float* pair = pairs + 2 * (row * block.groups + g);
        block.scale[g * block.rows + row] = pair[0];
        block.zero[g * block.rows + row] = pair[1];
      }
    }
  }

  /// As CentredLevels::ToLevels and ScaleFromCode do it.
  static void LoadFitted(const KvItem& item, const ScalarBlock& layout, const uint8_t* bytes,
                         Block& block) {
    FittedHeader header{};
    std::memcpy(&header, bytes + layout.header, sizeof(header));
    const F32 powers = V::Load(kSixteenthPowers.of);
    const F32 centre = V::Set(static_cast<float>((1 << item.bits) - 1) * 0.5f);
    const int32_t count = block.rows * block.groups;
    float scales[kMaxScalarLevels];
    float zeros[kMaxScalarLevels];
    for (int32_t i = 0; i < count; i += 16) {
      const I32 code = V::ToInt(V::LoadUint8(bytes + layout.scales + i));
      const I32 exponent = V::SubInt(V::SetInt(0), V::template ShiftRightInt<4>(code));
      const F32 power = V::Mul(V::Lookup(powers, V::AndInt(code, V::SetInt(15))),
                               Elementwise<V>::PowerOfTwo(exponent));
      const F32 scale = V::Mul(V::Set(header.largest_scale), power);
      const F32 mean =
          V::Add(V::Set(header.smallest_mean),
                 V::Mul(V::Set(header.mean_step), V::LoadUint8(bytes + layout.means + i)));
      V::Store(scales + i, scale);
      V::Store(zeros + i, V::Sub(mean, V::Mul(scale, centre)));
    }
    for (int32_t row = 0; row < block.rows; ++row) {
      for (int32_t g = 0; g < block.groups; ++g) {
        block.scale[g * block.rows + row] = scales[row * block.groups + g];
        block.zero[g * block.rows + row] = zeros[row * block.groups + g];
      }
    }
  }

  /// The factors of one attention row: w [rows] times the block's scales, and sum of w zero.
  static void Fold(const Block& block, const float* w, ScalarFactors& out) {
    constexpr float kTop = 127.0f * 128.0f;
    float product[kMaxScalarLevels];
    for (int32_t g = 0; g < block.groups; ++g) {
      F32 bias = V::Zero();
      for (int32_t row = 0; row < block.rows; row += 16) {
        const int lanes = Elementwise<V>::Lanes(block.rows - row);
        const F32 factor = V::LoadFirst(w + row, lanes);
        const int32_t at = g * block.rows + row;
        V::StoreFirst(product + at, V::Mul(factor, V::LoadFirst(block.scale + at, lanes)), lanes);
        bias = V::Fma(factor, V::LoadFirst(block.zero + at, lanes), bias);
      }
      out.bias[g] = V::ReduceAdd(bias);
    }
    const int32_t count = block.groups * block.rows;
    const F32 inverse = V::Set(Elementwise<V>::FixedPoint(product, count, kTop, &out.unit));
    for (int32_t i = 0; i < count; i += 16) {
      const F32 x = V::LoadFirst(product + i, Elementwise<V>::Lanes(count - i));
      Elementwise<V>::StoreSigned(V::ToInt(V::Mul(x, inverse)), out.high + i, out.low + i);
    }
  }

  /// The four factors of rows [row, row + 4) for sixteen elements, of which the first `own` are in
  /// group `g` and the others in the next.
  [[gnu::always_inline]] static U8 Four(const Block& block, const int8_t* factors, int32_t g,
                                        int32_t row, int32_t own) {
    const int8_t* place = factors + g * block.rows + row;
    const U8 first = V::RepeatFour(place);
    if (own >= 16) return first;
    return V::KeepFirstFours(first, own, V::RepeatFour(place + block.rows));
  }

  /// store(r, element, lanes, sum) for all elements and R rows of factors.
  template <int kBits, int R, typename Sink>
  static void DotRows(const Block& block, const ScalarFactors* factors, Sink store) {
    constexpr int kFields = 8 / kBits;
    for (int32_t column = 0; column < block.row_bytes; column += 16) {
      I32 high[R][kFields];
      I32 low[R][kFields];
      int32_t group[kFields];
      int32_t own[kFields];
      Unroll<kFields>([&](auto i) __attribute__((always_inline)) {
        const auto element = static_cast<int32_t>(i.value * block.row_bytes) + column;
        group[i.value] = element / block.group_size;
        own[i.value] = (group[i.value] + 1) * block.group_size - element;
        if (group[i.value] + 1 == block.groups) own[i.value] = 16;
        Unroll<R>([&](auto r) __attribute__((always_inline)) {
          high[r.value][i.value] = V::SetInt(0);
          low[r.value][i.value] = V::SetInt(0);
        });
      });
      for (int32_t row = 0; row < block.rows; row += 4) {
        const U8 four =
            V::InterleaveFour(block.codes + row * block.row_bytes + column, block.row_bytes);
        Unroll<kFields>([&](auto i) __attribute__((always_inline)) {
          const U8 codes = V::template Field<i.value * kBits, (1 << kBits) - 1>(four);
          Unroll<R>([&](auto r) __attribute__((always_inline)) {
            const ScalarFactors& f = factors[r.value];
            I32& sum_high = high[r.value][i.value];
            I32& sum_low = low[r.value][i.value];
            sum_high = V::template DotFours<7>(
                sum_high, codes, Four(block, f.high, group[i.value], row, own[i.value]));
            sum_low = V::template DotFours<7>(
                sum_low, codes, Four(block, f.low, group[i.value], row, own[i.value]));
          });
        });
      }
      const int lanes = Elementwise<V>::Lanes(block.row_bytes - column);
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const ScalarFactors& f = factors[r.value];
        Unroll<kFields>([&](auto i) __attribute__((always_inline)) {
          const int32_t g = group[i.value];
          const int32_t first = own[i.value] < 16 ? own[i.value] : 16;
          const F32 bias =
              V::KeepFirst(V::Set(f.bias[g]), first, V::Set(f.bias[first < 16 ? g + 1 : g]));
          const I32 sum =
              V::AddInt(V::template ShiftLeftInt<7>(high[r.value][i.value]), low[r.value][i.value]);
          store(r.value, static_cast<int32_t>(i.value * block.row_bytes) + column, lanes,
                V::Fma(V::ToFloat(sum), V::Set(f.unit), bias));
        });
      });
    }
  }

  template <typename Sink>
  static void Dot(int32_t bits, const Block& block, const ScalarFactors* factors, int32_t rows,
                  Sink store) {
    WithCount<V::kIntRows>(rows, [&](auto count) {
      constexpr int kRows = decltype(count)::value;
      if (bits == 2) return DotRows<2, kRows>(block, factors, store);
      if (bits == 4) return DotRows<4, kRows>(block, factors, store);
      for (int r = 0; r < kRows; ++r) {  // eight fields of one row fill the registers
        DotRows<1, 1>(block, factors + r, [&](int, int32_t element, int lanes, F32 sum) {
          store(r, element, lanes, sum);
        });
      }
    });
  }

  /// Scores of all rows against a page's keys, to weights[row][offset ...].
  static void Scores(const AttentionTile& tile, const uint8_t* bytes, int32_t offset) {
    Block block;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets what is read
    Load(tile.key->item, KvTensor::kKey, tile.head_size, bytes, block);
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      const int32_t rows = tile.rows - row < V::kIntRows ? tile.rows - row : V::kIntRows;
      ScalarFactors factors[V::kIntRows];
      for (int32_t r = 0; r < rows; ++r) {
        Fold(block, tile.scratch.queries + int64_t{row + r} * tile.head_size, factors[r]);
      }
      float* scores = tile.scratch.weights + int64_t{row} * kGroupTokens + offset;
      Dot(
          tile.key->item.bits, block, factors,
          rows, [&](int r, int32_t element, int lanes, F32 sum) __attribute__((always_inline)) {
            V::StoreFirst(scores + int64_t{r} * kGroupTokens + element, sum, lanes);
          });
    }
  }

  /// Adds a page's values, weighted by weights[row][offset ...], to the states' `area`.
  static void Values(const AttentionTile& tile, const uint8_t* bytes, int32_t offset, int64_t area,
                     float* states) {
    Block block;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets what is read
    Load(tile.value->item, KvTensor::kValue, tile.head_size, bytes, block);
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      const int32_t rows = tile.rows - row < V::kIntRows ? tile.rows - row : V::kIntRows;
      ScalarFactors factors[V::kIntRows];
      for (int32_t r = 0; r < rows; ++r) {
        Fold(block, tile.scratch.weights + int64_t{row + r} * kGroupTokens + offset, factors[r]);
      }
      float* sums = states + row * tile.state_floats + area;
      Dot(
          tile.value->item.bits, block, factors,
          rows, [&](int r, int32_t element, int lanes, F32 sum) __attribute__((always_inline)) {
            float* place = sums + r * tile.state_floats + element;
            V::StoreFirst(place, V::Add(V::LoadFirst(place, lanes), sum), lanes);
          });
    }
  }
};

}  // namespace asymserve
