#pragma once

#include <cstdint>

#include "engine/backend/cpu/amx_tiles.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/simd_avx512.h"
#include "engine/backend/cpu/unroll.h"
#include "engine/backend/cpu/weight_formats.h"

namespace asymserve {

/// QuantizedMatMul<Avx512Simd, Format> for chunks of several rows, with the same bits: the integer
/// sums of a block of 32 inputs, 16 rows and 16 columns are one product of tiles, and what is done
/// with them in floats keeps its order. A run of a panel's blocks is decoded into tiles once, for
/// all rows. Very few rows go to the kernel without tiles.
template <typename Format, DType kType>
struct AmxMatMul {
  using V = Avx512Simd;
  using F32 = V::F32;
  using I32 = V::I32;

  // Fewer rows cost less without tiles: of a chunk that has no whole tile, and of the last tile of
  // others, for which the weights are decoded in any case.
  static constexpr int kLeastRows = 8, kLeastLastRows = 3;
  static constexpr int kRunBlocks = 32 / Format::kHalves;  // 16 KiB of codes
  static constexpr int kSums = kTileRows * kPanelColumns;

  /// Where blocks of a panel begin.
  struct Blocks {
    const uint8_t* codes;
    const uint8_t* scales;
  };

  /// What a product of tiles reads and writes. The processor forwards neither vectors to the load
  /// of a tile nor a tile to loads of vectors: whoever stores works on something else before the
  /// load.
  struct alignas(64) Scratch {  // NOLINT(cppcoreguidelines-pro-type-member-init)
    uint8_t codes[kRunBlocks][Format::kHalves][kTilesPerBlock * kTileBytes];
    struct {
      float scale[Format::kHalves][kPanelColumns];
      float min[kPanelColumns];
    } weights[kRunBlocks];
    int32_t sums[2][Format::kHalves][kSums];  // of blocks in turn
  };

  /// `count` blocks of a panel from `first` on.
  static void Decode(const Blocks& panel, int64_t first, int64_t count, Scratch& scratch) {
    constexpr int kTiles = kTilesPerBlock / Format::kHalves;
    for (int64_t b = 0; b < count; ++b) {
      WeightBlock<V> w;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets all
      Format::Load(panel.codes, panel.scales, first + b, w);
      Unroll<kTilesPerBlock>([&](auto j) __attribute__((always_inline)) {
        // Of two halves each has zeros where the other is.
        _mm512_store_si512(scratch.codes[b][j.value / kTiles] + j.value * kTileBytes,
                           w.tiles[j.value]);
      });
      Unroll<Format::kHalves>([&](auto half) __attribute__((always_inline)) {
        _mm512_store_ps(scratch.weights[b].scale[half.value], w.scale[half.value]);
      });
      if constexpr (Format::kHasMin) _mm512_store_ps(scratch.weights[b].min, w.min);
    }
  }

  /// Block b of what will be decoded next: memory is read while others are multiplied.
  [[gnu::always_inline]] static void Prefetch(const Blocks& next, int64_t b) {
    constexpr int kShare = Format::kBlock / kQuantBlock;
    constexpr int kCodes = Format::kCodeBytes / kShare, kScales = Format::kScaleBytes / kShare;
    for (int byte = 0; byte < kCodes; byte += 64) {
      __builtin_prefetch(next.codes + b * kCodes + byte, 0, 3);
    }
    __builtin_prefetch(next.scales + b * kScales, 0, 3);
  }

  /// The sums of a decoded block, without the zero point, in tiles.
  template <int kTurn>
  [[gnu::always_inline]] static void Multiply(int64_t b, const ActivationBlock& x,
                                              const Scratch& scratch) {
    LoadTile<kAmxRows + kTurn>(x.q, kQuantBlock);
    Unroll<Format::kHalves>([&](auto half) __attribute__((always_inline)) {
      constexpr int kTile = kAmxSums + 2 * half.value + kTurn;
      LoadTile<kAmxCodes + kTurn>(scratch.codes[b][half.value], kTileBytes);
      ZeroTile<kTile>();
      DotTiles<kTile, kAmxRows + kTurn, kAmxCodes + kTurn>();
    });
  }

  /// To sums[kTurn][half][row][column].
  template <int kTurn>
  [[gnu::always_inline]] static void StoreSums(Scratch& scratch) {
    Unroll<Format::kHalves>([&](auto half) __attribute__((always_inline)) {
      StoreTile<kAmxSums + 2 * half.value + kTurn>(scratch.sums[kTurn][half.value],
                                                   kPanelColumns * sizeof(int32_t));
    });
  }

  template <int kHalf>
  [[gnu::always_inline]] static F32 AddHalf(F32 scale, const ActivationBlock& x,
                                            const int32_t* sums, int row, F32 y) {
    I32 sum = _mm512_load_si512(sums + row * kPanelColumns);
    if constexpr (Format::kZeroPoint != 0) {
      constexpr int kShift = __builtin_ctz(Format::kZeroPoint);
      const int32_t negative =
          Format::kHalves == 2 ? x.negative_half[kHalf][row] : x.negative_sum[row];
      sum = _mm512_add_epi32(sum, V::template ShiftLeftInt<kShift>(V::SetInt(negative)));
    }
    return V::Fma(V::ToFloat(sum), V::Mul(scale, V::Set(x.scale[row])), y);
  }

  /// Adds a block's sums, scaled, to R rows.
  template <int R, int kTurn>
  [[gnu::always_inline]] static void AddBlock(int64_t b, const ActivationBlock& x,
                                              const Scratch& scratch, F32 (&y)[R]) {
    const auto& sums = scratch.sums[kTurn];
    const F32 first = V::Load(scratch.weights[b].scale[0]);
    const F32 last = V::Load(scratch.weights[b].scale[Format::kHalves - 1]);
    const F32 min = Format::kHasMin ? V::Load(scratch.weights[b].min) : V::Zero();
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      F32 sum = AddHalf<0>(first, x, sums[0], r.value, y[r.value]);
      if constexpr (Format::kHalves == 2) sum = AddHalf<1>(last, x, sums[1], r.value, sum);
      if constexpr (Format::kHasMin) sum = V::Fma(min, V::Set(x.scaled_sum[r.value]), sum);
      y[r.value] = sum;
    });
  }

  /// `rows` <= R rows of a row tile against the decoded blocks of a panel; the first of a panel's
  /// blocks set `out`, others add to it. While a block is added, the tiles of the one after the
  /// next are multiplied and those of the next are stored.
  template <int R>
  static void PanelTile(const ActivationBlock* x, int rows, bool first, int64_t blocks, float* out,
                        int64_t stride, int columns, const Blocks& next, Scratch& scratch) {
    F32 y[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      const bool from_out = !first && r.value < rows;
      y[r.value] = from_out ? V::LoadFirst(out + r.value * stride, columns) : V::Zero();
    });
    const auto add = [&](int64_t b, auto turn) __attribute__((always_inline)) {
      constexpr int kTurn = decltype(turn)::value;
      if (b + 2 < blocks) Multiply<kTurn>(b + 2, x[b + 2], scratch);
      if (b + 1 < blocks) StoreSums<1 - kTurn>(scratch);
      Prefetch(next, b);
      AddBlock<R, kTurn>(b, x[b], scratch, y);
    };
    Multiply<0>(0, x[0], scratch);
    if (blocks > 1) Multiply<1>(1, x[1], scratch);
    StoreSums<0>(scratch);
    for (int64_t b = 0; b < blocks; b += 2) {
      add(b, Constant<0>{});
      if (b + 1 < blocks) add(b + 1, Constant<1>{});
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      if (r.value < rows) V::StoreFirst(out + r.value * stride, y[r.value], columns);
    });
  }

  static void Run(const MatMulChunk& c) {
    const int64_t left = (c.last_row - c.first_row) % kTileRows;
    MatMulChunk few = c;
    const int least = c.last_row - c.first_row < kTileRows ? kLeastRows : kLeastLastRows;
    few.first_row = c.last_row - (left < least ? left : 0);
    if (c.first_row < few.first_row) RunTiles(c, few.first_row);
    if (few.first_row < c.last_row) Avx512Kernels()->matmul[static_cast<int>(kType)](few);
  }

 private:
  /// Where block b of a panel is.
  static Blocks At(const MatMulChunk& c, int32_t panel, int64_t b) {
    constexpr int64_t kShare = Format::kBlock / kQuantBlock;
    const auto* codes = reinterpret_cast<const uint8_t*>(c.panels + panel * c.panel_bytes);
    const uint8_t* scales = codes + c.inputs / Format::kBlock * Format::kCodeBytes;
    return {codes + b / kShare * Format::kCodeBytes, scales + b / kShare * Format::kScaleBytes};
  }

  /// A run of decoded blocks from `first` on of one panel, the rows before `last_row`.
  static void PanelRun(const MatMulChunk& c, int32_t panel, int64_t first, int64_t count,
                       int64_t last_row, const Blocks& next, Scratch& scratch) {
    const int64_t left = c.columns - int64_t{panel} * kPanelColumns;
    const int columns = left < kPanelColumns ? static_cast<int>(left) : kPanelColumns;
    const int64_t blocks = c.inputs / kQuantBlock;
    for (int64_t row = c.first_row; row < last_row; row += kTileRows) {
      const int64_t rows_left = last_row - row;
      const int rows = rows_left < kTileRows ? static_cast<int>(rows_left) : kTileRows;
      const ActivationBlock* x = c.activations + row / kTileRows * blocks + first;
      float* out = c.out + row * c.out_stride + int64_t{panel} * kPanelColumns;
      WithSize<4, 8, 12, 16>(rows, [&](auto size) {
        PanelTile<decltype(size)::value>(x, rows, first == 0, count, out, c.out_stride, columns,
                                         next, scratch);
      });
    }
  }

  /// The rows before `last_row`.
  static void RunTiles(const MatMulChunk& c, int64_t last_row) {
    Scratch scratch;  // NOLINT(cppcoreguidelines-pro-type-member-init): written before it is read
    if constexpr (Format::kHalves == 2) __builtin_memset(scratch.codes, 0, sizeof(scratch.codes));
    const int64_t blocks = c.inputs / kQuantBlock;
    ConfigureTiles();
    for (int32_t panel = c.first_panel; panel < c.last_panel; ++panel) {
      for (int64_t first = 0; first < blocks; first += kRunBlocks) {
        const int64_t left = blocks - first;
        const int64_t count = left < kRunBlocks ? left : kRunBlocks;
        Decode(At(c, panel, 0), first, count, scratch);
        const bool more = count < left || panel + 1 == c.last_panel;
        const Blocks next = more ? At(c, panel, (first + count) % blocks) : At(c, panel + 1, 0);
        PanelRun(c, panel, first, count, last_row, next, scratch);
      }
    }
    ReleaseTiles();
    _mm256_zeroupper();  // g++ does so from -O2 on only; SSE code is slow without
  }
};

}  // namespace asymserve
