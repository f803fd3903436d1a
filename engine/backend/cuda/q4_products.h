#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/matrix_view.h"

namespace asymserve::cuda {

/// Strands of a sum, below.
inline constexpr int32_t kQ4Strands = 32;

/// As Product for 4-bit weights: w of a type of IsQ4, in the tiles of q4_layout.h, x at a multiple
/// of 16 bytes, or it is cudaErrorInvalidValue. Weights are decoded in registers to the fp32 values
/// of DequantizeRow; x is fp32.
///
/// One kernel does any number of rows, in tiles of 1, 4 or 8, and every element is summed in one
/// order: of the blocks of 32 columns, strand s has s, s + 32, s + 64, ...; it adds one fused
/// multiply-add after the other, in order of its columns. Strands 4 i to 4 i + 3 are added as
/// (a + b) + (c + d), the eight results one after the other. So a row of `out` depends on its own
/// row of x only, bit for bit.
cudaError_t Q4Product(float* out, int64_t out_stride, const float* x, int64_t rows,
                      const MatrixView& w, cudaStream_t stream);

}  // namespace asymserve::cuda
