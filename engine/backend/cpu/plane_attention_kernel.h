#pragma once

#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

/// Attention over kPlanes blocks, codes used as they are. A score is a sum of table entries, one a
/// plane: the entries codebook . q' of a query are int8 with one scale. Values are looked up as
/// int8, summed over the planes of a subvector, and weighted by 14-bit fixed point numbers, against
/// the largest weight of the group's sealed pages; they are summed before anything is converted.
template <typename V>
struct PlaneAttention {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  using U8 = typename V::U8;
  using S16 = typename V::S16;

  static int64_t Padded(int32_t head_size) { return (head_size + 15) / 16 * 16; }

  static int32_t PlanesOf(const KvItem& item, const KvBlock& block) {
    return block.refinement != nullptr ? item.fresh_planes : item.base_planes;
  }
  /// The bytes of planes 2i and 2i + 1, of which `plane` is one.
  static const uint8_t* PlanePair(const KvItem& item, const KvBlock& block, int32_t plane) {
    const bool in_base = plane < item.base_planes;
    return (in_base ? block.bytes : block.refinement) +
           int64_t{in_base ? plane : plane - item.base_planes} / 2 * kPageTokens;
  }

  /// Asks for a block that is read soon, if it is one.
  [[gnu::always_inline]] static void Prefetch(const KvItem& item, const KvBlock& block) {
    if (block.codec != KvCodec::kPlanes) return;
    const int32_t planes = PlanesOf(item, block);
    for (int32_t p = 0; p < planes; p += 2) V::Prefetch(PlanePair(item, block, p));
  }

  /// Asks for what the tile's codes are looked up in.
  static void PrefetchTables(const AttentionTile& tile) {
    if (tile.key->item.codec == KvCodec::kPlanes) {
      Prefetch(tile.key->planes.transform, tile.head_size * Padded(tile.head_size));
      Prefetch(tile.key->planes.codebooks, int64_t{tile.key->item.base_planes} * 64);
    }
    if (tile.value->item.codec == KvCodec::kPlanes) {
      Prefetch(tile.value->planes.transform, tile.head_size * Padded(tile.head_size));
    }
  }
  [[gnu::always_inline]] static void Prefetch(const float* p, int64_t elements) {
    for (int64_t i = 0; i < elements; i += 16) V::Prefetch(p + i);
  }

  // ---- Keys -----------------------------------------------------------------------------------

  /// Rotates q to the start of a frame, as keys were before they were encoded.
  static void RotateBack(const AttentionTile& tile, int32_t position, float* q) {
    const int32_t half = tile.head_size / 2;
    const float* cosine = tile.rope + int64_t{position} * tile.head_size;
    if (tile.interleaved) {
      RotatePairs<2>(cosine, cosine + half, half, 1, q);
    } else {
      RotatePairs<1>(cosine, cosine + half, half, half, q);
    }
  }
  template <int kStep>
  static void RotatePairs(const float* cosine, const float* sine, int32_t half, int32_t other,
                          float* q) {
    for (int32_t i = 0; i < half; ++i) {
      const float a = q[i * kStep];
      const float b = q[i * kStep + other];
      q[i * kStep] = a * cosine[i] + b * sine[i];
      q[i * kStep + other] = b * cosine[i] - a * sine[i];
    }
  }

  /// out [R][Dp] = x [R][D] times matrix [D][Dp], summed over the matrix's rows in order; rows of x
  /// and out are kMaxHeadSize apart.
  template <int R>
  static void TimesMatrix(const float* x, const float* matrix, int32_t n, float* out) {
    const int64_t padded = Padded(n);
    int64_t j = 0;
    for (; j + 64 <= padded; j += 64) Columns<R, 4>(x, matrix + j, n, padded, out + j);
    for (; j < padded; j += 16) Columns<R, 1>(x, matrix + j, n, padded, out + j);
  }
  template <int R, int N>
  static void Columns(const float* x, const float* matrix, int32_t n, int64_t stride, float* out) {
    F32 sum[R][N];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<N>([&](auto i) __attribute__((always_inline)) { sum[r.value][i.value] = V::Zero(); });
    });
    for (int32_t row = 0; row < n; ++row) {
      F32 m[N];
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        m[i.value] = V::Load(matrix + row * stride + 16 * i.value);
      });
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const F32 factor = V::Set(x[r.value * kMaxHeadSize + row]);
        Unroll<N>([&](auto i) __attribute__((always_inline)) {
          sum[r.value][i.value] = V::Fma(factor, m[i.value], sum[r.value][i.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<N>([&](auto i) __attribute__((always_inline)) {
        V::Store(out + r.value * kMaxHeadSize + 16 * i.value, sum[r.value][i.value]);
      });
    });
  }

  /// The rows' tables of the first `planes` planes for the frame that starts at page `page`.
  static void LoadTables(const AttentionTile& tile, int32_t page, int32_t planes) {
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        LoadRows<decltype(count)::value>(tile, row, page, planes);
      });
    }
  }

  template <int R>
  static void LoadRows(const AttentionTile& tile, int32_t row, int32_t page, int32_t planes) {
    const int32_t size = tile.head_size;
    float queries[R][kMaxHeadSize];
    float transformed[R][kMaxHeadSize];
    for (int r = 0; r < R; ++r) {
      std::memcpy(queries[r], tile.scratch.queries + int64_t{row + r} * size,
                  sizeof(float) * static_cast<size_t>(size));
      RotateBack(tile, page * kPageTokens, queries[r]);
    }
    TimesMatrix<R>(queries[0], tile.key->planes.transform, size, transformed[0]);
    for (int r = 0; r < R; ++r) {
      MakeTable(tile.key->planes, size, planes, queries[r], transformed[r],
                tile.scratch.key_tables[row + r]);
    }
  }

  /// `query` [D] rotated back, and the same times the transform.
  static void MakeTable(const PlaneTables& code, int32_t size, int32_t planes, const float* query,
                        const float* transformed, KeyTable& table) {
    F32 bias = V::Zero();
    for (int32_t d = 0; d < size; d += 16) {
      const F32 part = V::LoadFirst(query + d, Elementwise<V>::Lanes(size - d));
      bias = V::Fma(part, V::Load(code.mean + d), bias);
    }
    table.bias = V::ReduceAdd(bias);

    float entries[kMaxPlanes * 16];
    for (int32_t p = 0; p < planes; ++p) {
      const float* z = transformed + 4 * code.subvector[p];
      const float* codebook = code.codebooks + int64_t{p} * 64;
      F32 sum = V::Mul(V::Set(z[0]), V::Load(codebook));
      for (int c = 1; c < 4; ++c) {
        sum = V::Fma(V::Set(z[c]), V::Load(codebook + 16 * c), sum);
      }
      V::Store(entries + 16 * p, sum);
    }
    const F32 inverse =
        V::Set(Elementwise<V>::FixedPoint(entries, 16 * planes, 127.0f, &table.scale));
    for (int32_t p = 0; p < planes; ++p) {
      V::StoreInt8(table.entries + 16 * p, V::ToInt(V::Mul(V::Load(entries + 16 * p), inverse)));
    }
  }

  template <int R>
  static void ScoreRows(const AttentionTile& tile, int32_t row, const KvBlock& block,
                        int32_t offset) {
    const KvItem& item = tile.key->item;
    const KeyTable* tables = tile.scratch.key_tables + row;
    const int32_t planes = PlanesOf(item, block);
    S16 sums[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) { sums[r.value] = V::ZeroSums(); });
    for (int32_t p = 0; p < planes; p += 2) {
      const U8 codes = V::LoadCodes(PlanePair(item, block, p));
      const U8 low = V::template Field<0, 15>(codes);
      const U8 high = V::template Field<4, 15>(codes);
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const int8_t* entries = tables[r.value].entries + 16 * p;
        V::AddSigned(sums[r.value], V::LookupBytes(entries, low),
                     V::LookupBytes(entries + 16, high));
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      F32 score[4];
      V::SumsToFloat(sums[r.value], score);
      const F32 scale = V::Set(tables[r.value].scale);
      const F32 bias = V::Set(tables[r.value].bias);
      float* out = tile.scratch.weights + int64_t{row + r.value} * kGroupTokens + offset;
      for (int i = 0; i < 4; ++i) V::Store(out + 16 * i, V::Fma(score[i], scale, bias));
    });
  }

  /// Scores of all rows against a page's keys, to weights[row][offset ...]; the tables are loaded.
  static void Scores(const AttentionTile& tile, const KvBlock& block, int32_t offset) {
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        ScoreRows<decltype(count)::value>(tile, row, block, offset);
      });
    }
  }

  // ---- Values ---------------------------------------------------------------------------------

  /// The sealed pages of a group, and where their weights are.
  struct Pages {
    int32_t count = 0;
    const KvBlock* block[kGroupPages] = {};
    int32_t offset[kGroupPages] = {};
  };

  /// The codes of a plane, one a byte.
  [[gnu::always_inline]] static U8 Codes(const KvItem& item, const KvBlock& block, int32_t plane) {
    const U8 pair = V::LoadCodes(PlanePair(item, block, plane));
    if (plane % 2 == 0) return V::template Field<0, 15>(pair);
    return V::template Field<4, 15>(pair);
  }

  /// The four channels of a subvector of 64 tokens. False when no plane of the block has any.
  [[gnu::always_inline]] static bool Decode(const KvHead& head, const KvBlock& block,
                                            int32_t subvector, U8 (&values)[4]) {
    const PlaneTables& code = head.planes;
    const int32_t planes = PlanesOf(head.item, block);
    const uint8_t* plane = code.by_subvector + code.first_of[subvector];
    const uint8_t* last = code.by_subvector + code.first_of[subvector + 1];
    if (plane == last || *plane >= planes) return false;
    U8 codes = Codes(head.item, block, *plane);
    const int8_t* entries = code.entries + int64_t{*plane} * 64;
    Unroll<4>([&](auto c) __attribute__((always_inline)) {
      values[c.value] = V::LookupBytes(entries + 16 * c.value, codes);
    });
    while (++plane != last && *plane < planes) {
      codes = Codes(head.item, block, *plane);
      entries = code.entries + int64_t{*plane} * 64;
      Unroll<4>([&](auto c) __attribute__((always_inline)) {
        values[c.value] =
            V::AddBytes(values[c.value], V::LookupBytes(entries + 16 * c.value, codes));
      });
    }
    return true;
  }

  template <int R>
  static void ValueRows(const AttentionTile& tile, int32_t row, const Pages& pages,
                        const float* units, float* const (&sums)[R]) {
    const uint8_t* fixed = tile.scratch.fixed_weights + int64_t{row} * 2 * kGroupTokens;
    int32_t whole[R][kMaxHeadSize];
    for (int32_t s = 0; s < tile.head_size / 4; ++s) {
      I32 high[R][4];
      I32 low[R][4];
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        Unroll<4>([&](auto c) __attribute__((always_inline)) {
          high[r.value][c.value] = V::SetInt(0);
          low[r.value][c.value] = V::SetInt(0);
        });
      });
      for (int32_t i = 0; i < pages.count; ++i) {
        U8 values[4];
        if (!Decode(*tile.value, *pages.block[i], s, values)) continue;
        Unroll<R>([&](auto r) __attribute__((always_inline)) {
          const uint8_t* place = fixed + int64_t{r.value} * 2 * kGroupTokens + pages.offset[i];
          const U8 w_high = V::LoadCodes(place);
          const U8 w_low = V::LoadCodes(place + kGroupTokens);
          Unroll<4>([&](auto c) __attribute__((always_inline)) {
            I32& sum_high = high[r.value][c.value];
            I32& sum_low = low[r.value][c.value];
            sum_high = V::template DotFours<7>(sum_high, w_high, values[c.value]);
            sum_low = V::template DotFours<7>(sum_low, w_low, values[c.value]);
          });
        });
      }
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        I32 sum[4];
        Unroll<4>([&](auto c) __attribute__((always_inline)) {
          const I32 shifted = V::template ShiftLeftInt<7>(high[r.value][c.value]);
          sum[c.value] = V::AddInt(shifted, low[r.value][c.value]);
        });
        V::ReduceFour(sum[0], sum[1], sum[2], sum[3], whole[r.value] + 4 * s);
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      for (int32_t d = tile.head_size; d < Padded(tile.head_size); ++d) whole[r.value][d] = 0;
      const F32 unit = V::Set(units[row + r.value]);
      for (int32_t d = 0; d < tile.head_size; d += 16) {
        const F32 scale = V::Mul(V::Load(tile.value->planes.scale + d), unit);
        V::Store(sums[r.value] + d, V::Mul(V::ToFloat(V::LoadInt(whole[r.value] + d)), scale));
      }
    });
  }

  /// Overwrites the states' `area` with the pages' values z', weighted by weights[row].
  static void Values(const AttentionTile& tile, const Pages& pages, int64_t area, float* states) {
    float units[kAttentionRows];
    for (int32_t row = 0; row < tile.rows; ++row) units[row] = FixWeights(tile, row, pages);
    for (int32_t row = 0; row < tile.rows; row += V::kIntRows) {
      WithCount<V::kIntRows>(tile.rows - row, [&](auto count) {
        constexpr int kRows = decltype(count)::value;
        float* sums[kRows];
        for (int r = 0; r < kRows; ++r) sums[r] = states + (row + r) * tile.state_floats + area;
        ValueRows<kRows>(tile, row, pages, units, sums);
      });
    }
  }

  /// The weights of sealed pages as 14-bit integers; returns their unit, NaN when one is NaN. A
  /// near page of the group, such as the sink, may have weights that dwarf them.
  static float FixWeights(const AttentionTile& tile, int32_t row, const Pages& pages) {
    const float* weights = tile.scratch.weights + int64_t{row} * kGroupTokens;
    uint8_t* fixed = tile.scratch.fixed_weights + int64_t{row} * 2 * kGroupTokens;
    I32 largest = V::SetInt(0);
    for (int32_t i = 0; i < pages.count; ++i) {
      for (int32_t t = pages.offset[i]; t < pages.offset[i] + kPageTokens; t += 16) {
        largest = V::LargerInt(largest, V::Bits(V::Load(weights + t)));
      }
    }
    const int32_t bits = V::ReduceLargestInt(largest);
    float top[16] = {};
    __builtin_memcpy(top, &bits, sizeof(bits));
    float unit;
    const F32 factor = V::Set(Elementwise<V>::FixedPoint(top, 16, kWeightTop, &unit));
    for (int32_t i = 0; i < pages.count; ++i) {
      for (int32_t t = pages.offset[i]; t < pages.offset[i] + kPageTokens; t += 16) {
        const I32 whole = V::ToInt(V::Mul(V::Load(weights + t), factor));
        Elementwise<V>::StoreSevenBits(whole, fixed + t, fixed + kGroupTokens + t);
      }
    }
    return unit;
  }
};

}  // namespace asymserve
