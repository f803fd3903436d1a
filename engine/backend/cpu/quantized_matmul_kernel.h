#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"
#include "engine/backend/cpu/weight_formats.h"

namespace asymserve {

/// Products of int8 activations and quantized weights. Per output, for each block of 32 in order
/// and, inside, for each half that has a scale of its own:
///   y = fma(float(integer sum), scale_w * scale_x, y), then y = fma(min_w, scaled_sum_x, y).
/// The integer sum is exact, so only this order matters, and it is the same for every instruction
/// set and number of rows.
template <typename V, typename Format>
struct QuantizedMatMul {
  using F32 = typename V::F32;
  using I32 = typename V::I32;

  // Weights are fetched so many bytes before they are multiplied. With few rows, reading them takes
  // all of the time; the hardware alone, which prefetches no further than the end of a 4 KiB page,
  // reads one stream of them half as fast.
  static constexpr int64_t kAhead = 8192;

  static constexpr int Log2(int value) { return value <= 1 ? 0 : 1 + Log2(value / 2); }

  template <int kHalf>
  [[gnu::always_inline]] static F32 AddHalf(const WeightBlock<V>& w, const ActivationBlock& x,
                                            int row, F32 y) {
    constexpr int kCount = kTilesPerBlock / Format::kHalves;
    I32 start = V::SetInt(0);
    if constexpr (Format::kZeroPoint != 0) {
      const int32_t negative =
          Format::kHalves == 2 ? x.negative_half[kHalf][row] : x.negative_sum[row];
      start = V::template ShiftLeftInt<Log2(Format::kZeroPoint)>(V::SetInt(negative));
    }
    const I32 sum =
        V::template Dot<Format::kBits, kHalf * kCount, kCount>(w.tiles, x.q[row], start);
    return V::Fma(V::ToFloat(sum), V::Mul(w.scale[kHalf], V::Set(x.scale[row])), y);
  }

  /// Block b's share of a panel's bytes, kAhead further on: panels follow each other in memory.
  [[gnu::always_inline]] static void Prefetch(const uint8_t* panel, int64_t b) {
    constexpr int kBytes =
        (Format::kCodeBytes + Format::kScaleBytes) / (Format::kBlock / kQuantBlock);
    for (int byte = 0; byte < kBytes; byte += 64) V::Prefetch(panel + kAhead + b * kBytes + byte);
  }

  /// Rows [row, row + R) of a row tile against one panel; stores the first `rows` of them.
  template <int R>
  static void PanelRows(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        const ActivationBlock* x, int row, int rows, float* out, int64_t stride,
                        int columns) {
    F32 y[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) { y[r.value] = V::Zero(); });
    for (int64_t b = 0; b < blocks; ++b) {
      WeightBlock<V> w;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets all
      Format::Load(codes, scales, b, w);
      Prefetch(codes, b);
      const ActivationBlock& block = x[b];
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        F32 sum = AddHalf<0>(w, block, row + r.value, y[r.value]);
        if constexpr (Format::kHalves == 2) {
          sum = AddHalf<1>(w, block, row + r.value, sum);
        }
        if constexpr (Format::kHasMin) {
          sum = V::Fma(w.min, V::Set(block.scaled_sum[row + r.value]), sum);
        }
        y[r.value] = sum;
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      if (r.value >= rows) return;
      if (columns == kPanelColumns) {
        V::Store(out + r.value * stride, y[r.value]);
      } else {
        V::StoreFirst(out + r.value * stride, y[r.value], columns);
      }
    });
  }

  /// `rows` <= kTileRows rows of a row tile against one panel, in groups that fit the registers.
  static void PanelTile(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        const ActivationBlock* x, int rows, float* out, int64_t stride,
                        int columns) {
    for (int row = 0; row < rows; row += V::kQuantRows) {
      const int left = rows - row < V::kQuantRows ? rows - row : V::kQuantRows;
      WithSize<1, 2, 3, 4, 6, 8, 12, 16>(left, [&](auto size) {
        constexpr int kRows = decltype(size)::value;
        if constexpr (kRows <= V::kQuantRows) {
          PanelRows<kRows>(codes, scales, blocks, x, row, left, out + row * stride, stride,
                           columns);
        }
      });
    }
  }

  /// All row tiles of the chunk against one panel.
  static void Panel(const MatMulChunk& c, int32_t panel, const uint8_t* codes,
                    const uint8_t* scales) {
    const int64_t blocks = c.inputs / kQuantBlock;
    const int64_t left = c.columns - int64_t{panel} * kPanelColumns;
    const int columns = left < kPanelColumns ? static_cast<int>(left) : kPanelColumns;
    for (int64_t row = c.first_row; row < c.last_row; row += kTileRows) {
      const int64_t rows_left = c.last_row - row;
      const int rows = rows_left < kTileRows ? static_cast<int>(rows_left) : kTileRows;
      const ActivationBlock* x = c.activations + row / kTileRows * blocks;
      float* out = c.out + row * c.out_stride + int64_t{panel} * kPanelColumns;
      PanelTile(codes, scales, blocks, x, rows, out, c.out_stride, columns);
    }
  }

  static void Run(const MatMulChunk& c) {
    const int64_t packed_blocks = c.inputs / Format::kBlock;
    for (int32_t panel = c.first_panel; panel < c.last_panel; ++panel) {
      const auto* codes = reinterpret_cast<const uint8_t*>(c.panels + panel * c.panel_bytes);
      Panel(c, panel, codes, codes + packed_blocks * Format::kCodeBytes);
    }
  }
};

}  // namespace asymserve
