#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/matrix_view.h"
#include "engine/backend/cuda/product_inputs.h"

namespace asymserve::cuda {

inline constexpr InputOrder kQ4InputOrder = InputOrder::kInterleaved;

/// As Product for 4-bit weights, by tensor cores: w of a type of IsQ4, in the tiles of q4_layout.h,
/// x as RoundInputs gives it in kQ4InputOrder, or it is cudaErrorInvalidValue.
///
/// Codes (Q4_0: less 8) are exact in fp16. Every element is summed in one order for any number of
/// rows, so that a row of `out` depends on its own row of x only, bit for bit:
///
///   * Columns are taken in blocks of 32. Of a block the products of codes and of x, as fp16, are
///     summed from zero by two mma.m16n8k16, columns 0 to 15, then 16 to 31; the order within one
///     is the device's.
///   * sum = fma(scale, that, sum), then for types with a minimum fma(minimum, the block's sum of
///     x, sum).
///   * Strand s of 16 has blocks [B s / 16, B (s + 1) / 16) of B, in order, from zero. The strands
///     are added one after the other, and what comes out is multiplied by the row's power of two.
///
/// `enough_blocks`: of kEnoughBlocks.
cudaError_t Q4Product(float* out, int64_t out_stride, const ProductInputs& x, int64_t rows,
                      const MatrixView& w, cudaStream_t stream,
                      int64_t enough_blocks = kEnoughBlocks);

}  // namespace asymserve::cuda
