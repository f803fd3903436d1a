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
template <typename V, template <typename> class SourceFormat>
struct QuantizedMatMul {
  using F32 = typename V::F32;
  using I32 = typename V::I32;
  using Packed = SourceFormat<V>;
  using Expanded = ExpandedFormat<V, Packed>;

  static constexpr int Log2(int value) { return value <= 1 ? 0 : 1 + Log2(value / 2); }

  template <typename Format, int kHalf>
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

  /// Rows [row, row + R) of a row tile against one panel; stores the first `rows` of them.
  template <typename Format, int R>
  static void PanelRows(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        const ActivationBlock* x, int row, int rows, float* out, int64_t stride,
                        int columns) {
    F32 y[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) { y[r.value] = V::Zero(); });
    for (int64_t b = 0; b < blocks; ++b) {
      WeightBlock<V> w;
      Format::Load(codes, scales, b, w);
      const ActivationBlock& block = x[b];
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        F32 sum = AddHalf<Format, 0>(w, block, row + r.value, y[r.value]);
        if constexpr (Format::kHalves == 2) {
          sum = AddHalf<Format, 1>(w, block, row + r.value, sum);
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
  template <typename Format>
  static void PanelTile(const uint8_t* codes, const uint8_t* scales, int64_t blocks,
                        const ActivationBlock* x, int rows, float* out, int64_t stride,
                        int columns) {
    for (int row = 0; row < rows; row += V::kQuantRows) {
      const int left = rows - row < V::kQuantRows ? rows - row : V::kQuantRows;
      float* y = out + row * stride;
      const auto run = [&](auto count) {
        PanelRows<Format, decltype(count)::value>(codes, scales, blocks, x, row, left, y, stride,
                                                  columns);
      };
      if constexpr (V::kQuantRows > 8) {
        if (left > 8) {
          run(Constant<16>{});
          continue;
        }
      }
      if constexpr (V::kQuantRows > 4) {
        if (left > 4) {
          run(Constant<8>{});
          continue;
        }
      }
      if (left > 2) {
        run(Constant<4>{});
      } else if (left == 2) {
        run(Constant<2>{});
      } else {
        run(Constant<1>{});
      }
    }
  }

  static void Run(const MatMulChunk& c) {
    const int64_t blocks = c.inputs / kQuantBlock;
    const int64_t packed_blocks = c.inputs / Packed::kBlock;
    const bool expand = c.last_row - c.first_row >= V::kExpandRows;
    for (int32_t panel = c.first_panel; panel < c.last_panel; ++panel) {
      const auto* codes = reinterpret_cast<const uint8_t*>(c.panels + panel * c.panel_bytes);
      const uint8_t* scales = codes + packed_blocks * Packed::kCodeBytes;
      auto* expanded = reinterpret_cast<uint8_t*>(c.scratch);
      if (expand) Expanded::Expand(codes, scales, blocks, expanded);
      const int64_t left = c.columns - int64_t{panel} * kPanelColumns;
      const int columns = left < kPanelColumns ? static_cast<int>(left) : kPanelColumns;
      for (int64_t row = c.first_row; row < c.last_row; row += kTileRows) {
        const int64_t rows_left = c.last_row - row;
        const int rows = rows_left < kTileRows ? static_cast<int>(rows_left) : kTileRows;
        const ActivationBlock* x = c.activations + row / kTileRows * blocks;
        float* out = c.out + row * c.out_stride + int64_t{panel} * kPanelColumns;
        if (expand) {
          PanelTile<Expanded>(expanded, expanded + blocks * Expanded::kCodeBytes, blocks, x, rows,
                              out, c.out_stride, columns);
        } else {
          PanelTile<Packed>(codes, scales, blocks, x, rows, out, c.out_stride, columns);
        }
      }
    }
  }
};

}  // namespace asymserve
