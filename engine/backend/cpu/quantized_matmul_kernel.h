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

  struct Panel {
    const uint8_t* codes;
    const uint8_t* scales;
    int64_t blocks;
    int64_t bytes;  // from one panel to the next
    int columns;
  };

  /// Fetches the weights that are multiplied 8 KiB later, block by block; they may be the next
  /// panel's. With few rows, reading weights takes all of the time; the hardware alone, which
  /// fetches no further ahead than the end of a 4 KiB page, reads them half as fast.
  class Ahead {
   public:
    explicit Ahead(const Panel& panel) : panel_(panel) {
      const int64_t first = kBlocks % panel.blocks;
      const int64_t start = kBlocks / panel.blocks * panel.bytes;
      codes_ = panel.codes + start + first * kCodes;
      scales_ = panel.scales + start + first * kScales;
      left_ = panel.blocks - first;
    }
    [[gnu::always_inline]] void FetchBlock() {
      for (int byte = 0; byte < kCodes; byte += 64) V::Prefetch(codes_ + byte);
      V::Prefetch(scales_);
      codes_ += kCodes;
      scales_ += kScales;
      if (--left_ > 0) return;
      codes_ += panel_.bytes - panel_.blocks * kCodes;
      scales_ += panel_.bytes - panel_.blocks * kScales;
      left_ = panel_.blocks;
    }

   private:
    static constexpr int kShare = Format::kBlock / kQuantBlock;
    static constexpr int kCodes = Format::kCodeBytes / kShare,
                         kScales = Format::kScaleBytes / kShare;
    static constexpr int64_t kBlocks = 8192 / kCodes;
    const Panel& panel_;
    const uint8_t* codes_;
    const uint8_t* scales_;
    int64_t left_;  // of a panel
  };

  /// Rows [row, row + R) of a row tile against one panel; stores the first `rows` of them. The
  /// first rows of all fetch what comes next.
  template <int R>
  static void PanelRows(const Panel& panel, const ActivationBlock* x, int row, int rows,
                        bool fetches, float* out, int64_t stride) {
    Ahead ahead(panel);
    F32 y[R];
    Unroll<R>([&](auto r) __attribute__((always_inline)) { y[r.value] = V::Zero(); });
    for (int64_t b = 0; b < panel.blocks; ++b) {
      WeightBlock<V> w;  // NOLINT(cppcoreguidelines-pro-type-member-init): Load sets all
      Format::Load(panel.codes, panel.scales, b, w);
      if (fetches) ahead.FetchBlock();
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
      if (panel.columns == kPanelColumns) {
        V::Store(out + r.value * stride, y[r.value]);
      } else {
        V::StoreFirst(out + r.value * stride, y[r.value], panel.columns);
      }
    });
  }

  /// `rows` <= kTileRows rows of a row tile against one panel, in groups that fit the registers.
  static void PanelTile(const Panel& panel, const ActivationBlock* x, int rows, bool fetches,
                        float* out, int64_t stride) {
    for (int row = 0; row < rows; row += V::kQuantRows) {
      const int left = rows - row < V::kQuantRows ? rows - row : V::kQuantRows;
      WithSize<1, 2, 3, 4, 6, 8, 12, 16>(left, [&](auto size) {
        constexpr int kRows = decltype(size)::value;
        if constexpr (kRows <= V::kQuantRows) {
          PanelRows<kRows>(panel, x, row, left, fetches && row == 0, out + row * stride, stride);
        }
      });
    }
  }

  /// All row tiles of the chunk against one panel.
  static void AllRows(const MatMulChunk& c, int32_t index, const Panel& panel) {
    for (int64_t row = c.first_row; row < c.last_row; row += kTileRows) {
      const int64_t rows_left = c.last_row - row;
      const int rows = rows_left < kTileRows ? static_cast<int>(rows_left) : kTileRows;
      const ActivationBlock* x = c.activations + row / kTileRows * panel.blocks;
      float* out = c.out + row * c.out_stride + int64_t{index} * kPanelColumns;
      PanelTile(panel, x, rows, row == c.first_row, out, c.out_stride);
    }
  }

  static void Run(const MatMulChunk& c) {
    const int64_t packed_blocks = c.inputs / Format::kBlock;
    for (int32_t index = c.first_panel; index < c.last_panel; ++index) {
      const auto* codes = reinterpret_cast<const uint8_t*>(c.panels + index * c.panel_bytes);
      const int64_t left = c.columns - int64_t{index} * kPanelColumns;
      AllRows(c, index,
              {.codes = codes,
               .scales = codes + packed_blocks * Format::kCodeBytes,
               .blocks = c.inputs / kQuantBlock,
               .bytes = c.panel_bytes,
               .columns = left < kPanelColumns ? static_cast<int>(left) : kPanelColumns});
    }
  }
};

}  // namespace asymserve
