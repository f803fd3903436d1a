#pragma once

#include <cstdint>

#include "engine/backend/cpu/amx_tiles.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/simd_avx512.h"
#include "engine/backend/cpu/unroll.h"
#include "engine/backend/cpu/weight_formats.h"

namespace asymserve {

/// QuantizedMatMul<Avx512Simd, Format> for chunks of many rows, with the same bits: the integer
/// sums of a block of 32 inputs, 16 rows and 16 columns are one product of tiles, and what is done
/// with them in floats keeps its order. Few rows go to the kernel without tiles.
template <typename Format, DType kType>
struct AmxMatMul {
  using V = Avx512Simd;
  using F32 = V::F32;
  using I32 = V::I32;

  // Below so many rows of a tile its product costs more than theirs one by one.
  static constexpr int kLeastRows = 6;
  static constexpr int kSums = kTileRows * kPanelColumns;

  /// What a product of tiles reads and writes; a panel's blocks take turns.
  struct alignas(64) Scratch {  // NOLINT(cppcoreguidelines-pro-type-member-init)
    uint8_t codes[Format::kHalves][kTilesPerBlock * kTileBytes];
    int32_t sums[2][Format::kHalves][kSums];
  };

  /// The sums of a block to sums[half][row][column], without the zero point.
  [[gnu::always_inline]] static void Multiply(const WeightBlock<V>& w, const ActivationBlock& x,
                                              Scratch& scratch, int turn) {
    constexpr int kCount = kTilesPerBlock / Format::kHalves;
    LoadTile<kAmxRows>(x.q, kQuantBlock);
    Unroll<Format::kHalves>([&](auto half) __attribute__((always_inline)) {
      // Of two halves each has zeros where the other is.
      Unroll<kCount>([&](auto j) __attribute__((always_inline)) {
        constexpr int kTile = half.value * kCount + j.value;
        _mm512_store_si512(scratch.codes[half.value] + kTile * kTileBytes, w.tiles[kTile]);
      });
      LoadTile<kAmxCodes>(scratch.codes[half.value], kTileBytes);
      ZeroTile<kAmxSums>();
      DotTiles<kAmxSums, kAmxRows, kAmxCodes>();
      StoreTile<kAmxSums>(scratch.sums[turn][half.value], kPanelColumns * sizeof(int32_t));
    });
  }

  template <int kHalf>
  [[gnu::always_inline]] static F32 AddHalf(const WeightBlock<V>& w, const ActivationBlock& x,
                                            const int32_t* sums, int row, F32 y) {
    I32 sum = _mm512_load_si512(sums + row * kPanelColumns);
    if constexpr (Format::kZeroPoint != 0) {
      constexpr int kShift = __builtin_ctz(Format::kZeroPoint);
      const int32_t negative =
          Format::kHalves == 2 ? x.negative_half[kHalf][row] : x.negative_sum[row];
      sum = _mm512_add_epi32(sum, V::template ShiftLeftInt<kShift>(V::SetInt(negative)));
    }
    return V::Fma(V::ToFloat(sum), V::Mul(w.scale[kHalf], V::Set(x.scale[row])), y);
  }

  /// `rows` <= R rows of a row tile against one panel. The next block's tiles are multiplied while
  /// the sums of one are scaled.
  template <int R>
  static void PanelTile(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        const ActivationBlock* x, int rows, float* out, int64_t stride, int columns,
                        Scratch& scratch) {
    F32 y[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) { y[r.value] = V::Zero(); });
    WeightBlock<V> next;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets all
    Format::Load(codes, scales, 0, next);
    Multiply(next, x[0], scratch, 0);
    for (int64_t b = 0; b < blocks; ++b) {
      const WeightBlock<V> w = next;
      const int turn = static_cast<int>(b % 2);
      if (b + 1 < blocks) {
        Format::Load(codes, scales, b + 1, next);
        Multiply(next, x[b + 1], scratch, 1 - turn);
      }
      const ActivationBlock& block = x[b];
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        F32 sum = AddHalf<0>(w, block, scratch.sums[turn][0], r.value, y[r.value]);
        if constexpr (Format::kHalves == 2) {
          sum = AddHalf<1>(w, block, scratch.sums[turn][1], r.value, sum);
        }
        if constexpr (Format::kHasMin) {
          sum = V::Fma(w.min, V::Set(block.scaled_sum[r.value]), sum);
        }
        y[r.value] = sum;
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      if (r.value >= rows) return;
      V::StoreFirst(out + r.value * stride, y[r.value], columns);
    });
  }

  static void Run(const MatMulChunk& c) {
    const int64_t left = (c.last_row - c.first_row) % kTileRows;
    MatMulChunk few = c;
    few.first_row = c.last_row - (left < kLeastRows ? left : 0);
    if (c.first_row < few.first_row) RunTiles(c, few.first_row);
    if (few.first_row < c.last_row) Avx512Kernels()->matmul[static_cast<int>(kType)](few);
  }

 private:
  /// The rows before `last_row`.
  static void RunTiles(const MatMulChunk& c, int64_t last_row) {
    Scratch scratch;  // NOLINT(cppcoreguidelines-pro-type-member-init): written before it is read
    if constexpr (Format::kHalves == 2) __builtin_memset(scratch.codes, 0, sizeof(scratch.codes));
    const int64_t blocks = c.inputs / kQuantBlock;
    const int64_t code_bytes = c.inputs / Format::kBlock * Format::kCodeBytes;
    ConfigureTiles();
    for (int32_t panel = c.first_panel; panel < c.last_panel; ++panel) {
      const auto* codes = reinterpret_cast<const uint8_t*>(c.panels + panel * c.panel_bytes);
      const int64_t columns_left = c.columns - int64_t{panel} * kPanelColumns;
      const int columns =
          columns_left < kPanelColumns ? static_cast<int>(columns_left) : kPanelColumns;
      for (int64_t row = c.first_row; row < last_row; row += kTileRows) {
        const int64_t rows_left = last_row - row;
        const int rows = rows_left < kTileRows ? static_cast<int>(rows_left) : kTileRows;
        const ActivationBlock* x = c.activations + row / kTileRows * blocks;
        float* out = c.out + row * c.out_stride + int64_t{panel} * kPanelColumns;
        WithSize<8, 12, 16>(rows, [&](auto size) {
          PanelTile<decltype(size)::value>(codes, codes + code_bytes, blocks, x, rows, out,
                                           c.out_stride, columns, scratch);
        });
      }
    }
    ReleaseTiles();
    _mm256_zeroupper();  // g++ does so from -O2 on only; SSE code is slow without
  }
};

}  // namespace asymserve
