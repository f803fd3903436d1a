#pragma once

#include "engine/backend/cpu/attention_kernel.h"
#include "engine/backend/cpu/elementwise_kernel.h"
#include "engine/backend/cpu/float_matmul_kernel.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/plane_encode_kernel.h"
#include "engine/backend/cpu/quantized_matmul_kernel.h"
#include "engine/backend/cpu/weight_formats.h"

namespace asymserve {

/// All kernels for instruction set V.
template <typename V>
constexpr Kernels MakeKernels() {
  Kernels k = {};
  k.matmul[static_cast<int>(DType::kF32)] = FloatMatMul<V, F32Values<V>>::Run;
  k.matmul[static_cast<int>(DType::kF16)] = FloatMatMul<V, F16Values<V>>::Run;
  k.matmul[static_cast<int>(DType::kBF16)] = FloatMatMul<V, BF16Values<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ4_0)] = QuantizedMatMul<V, Q4_0Format<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ4_1)] = QuantizedMatMul<V, Q4_1Format<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ8_0)] = QuantizedMatMul<V, Q8_0Format<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ4K)] = QuantizedMatMul<V, Q4KFormat<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ5K)] = QuantizedMatMul<V, Q5KFormat<V>>::Run;
  k.matmul[static_cast<int>(DType::kQ6K)] = QuantizedMatMul<V, Q6KFormat<V>>::Run;
  k.quantize = Elementwise<V>::Quantize;
  k.rms_norm = Elementwise<V>::RmsNorm;
  k.add = Elementwise<V>::Add;
  k.swiglu = Elementwise<V>::SwiGlu;
  k.prepare_qkv = Elementwise<V>::PrepareQkv;
  k.to_half = Elementwise<V>::ToHalf;
  k.exp = Elementwise<V>::ExpAll;
  k.encode_planes = PlaneEncode<V>::Run;
  k.attention_load = PagedAttention<V>::Load;
  k.attention_scan = PagedAttention<V>::Scan;
  k.attention_merge = PagedAttention<V>::Merge;
  k.attention_finish = PagedAttention<V>::Finish;
  return k;
}

}  // namespace asymserve
