#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/unroll.h"

namespace asymserve {

template <typename V>
struct F32Values {
  using Value = float;
  static typename V::F32 Load(const Value* p) { return V::Load(p); }
};
template <typename V>
struct F16Values {
  using Value = uint16_t;
  static typename V::F32 Load(const Value* p) { return V::LoadHalf(p); }
};
template <typename V>
struct BF16Values {
  using Value = uint16_t;
  static typename V::F32 Load(const Value* p) { return V::LoadBrain(p); }
};

/// Products of fp32 activations and unquantized weights: y = fma(x[k], w[k], y) for k in order.
template <typename V, typename Format>
struct FloatMatMul {
  using F32 = typename V::F32;
  using Value = typename Format::Value;

  /// R rows against P panels. A row or panel beyond the end repeats the last one and is not stored.
  template <int R, int P>
  static void Block(const MatMulChunk& c, int64_t row, int64_t rows, int32_t panel,
                    int32_t panels) {
    const float* x[R];
    const Value* w[P];
    F32 y[R][P];
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      x[r.value] = c.x + (row + (r.value < rows ? r.value : rows - 1)) * c.x_stride;
      Unroll<P>([&](auto p) __attribute__((always_inline)) { y[r.value][p.value] = V::Zero(); });
    });
    Unroll<P>([&](auto p) __attribute__((always_inline)) {
      const int32_t index = panel + (p.value < panels ? p.value : panels - 1);
      w[p.value] = reinterpret_cast<const Value*>(c.panels + index * c.panel_bytes);
    });
    for (int64_t k = 0; k < c.inputs; ++k) {
      F32 weights[P];
      Unroll<P>([&](auto p) __attribute__((always_inline)) {
        weights[p.value] = Format::Load(w[p.value] + k * kPanelColumns);
      });
      Unroll<R>([&](auto r) __attribute__((always_inline)) {
        const F32 input = V::Set(x[r.value][k]);
        Unroll<P>([&](auto p) __attribute__((always_inline)) {
          y[r.value][p.value] = V::Fma(input, weights[p.value], y[r.value][p.value]);
        });
      });
    }
    Unroll<R>([&](auto r) __attribute__((always_inline)) {
      Unroll<P>([&](auto p) __attribute__((always_inline)) {
        if (r.value >= rows || p.value >= panels) return;
        const int64_t column = int64_t{panel + p.value} * kPanelColumns;
        const int64_t left = c.columns - column;
        float* out = c.out + (row + r.value) * c.out_stride + column;
        V::StoreFirst(out, y[r.value][p.value],
                      left < kPanelColumns ? static_cast<int>(left) : kPanelColumns);
      });
    });
  }

  static void Run(const MatMulChunk& c) {
    for (int32_t panel = c.first_panel; panel < c.last_panel; panel += V::kFloatPanels) {
      const int32_t panels =
          c.last_panel - panel < V::kFloatPanels ? c.last_panel - panel : V::kFloatPanels;
      for (int64_t row = c.first_row; row < c.last_row; row += V::kFloatRows) {
        const int64_t rows =
            c.last_row - row < V::kFloatRows ? c.last_row - row : int64_t{V::kFloatRows};
        if (rows == 1) {
          Block<1, V::kFloatPanels>(c, row, rows, panel, panels);
        } else {
          Block<V::kFloatRows, V::kFloatPanels>(c, row, rows, panel, panels);
        }
      }
    }
  }
};

}  // namespace asymserve
