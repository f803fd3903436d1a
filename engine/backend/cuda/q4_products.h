#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/matrix_view.h"

namespace asymserve::cuda {

/// As Product for 4-bit weights, by tensor cores: w of a type of IsQ4, in the tiles of q4_layout.h,
/// x at a multiple of 16 bytes, or it is cudaErrorInvalidValue.
///
/// An activation is the sum of two bf16, x to the nearest and what is left to the nearest: 2^-17 of
/// it is lost at most (and 2^-134). Codes (Q4_0: less 8) are exact in bf16. Every element is summed
/// in one order for any number of rows, so that a row of `out` depends on its own row of x only,
/// bit for bit:
///
///   * Columns are taken in blocks of 32. Of a block the products of codes and activations are
///     summed from zero by four mma.m16n8k16, columns 0 to 15 times the first and then the second
///     parts of x, then columns 16 to 31; the order within one is the device's.
///   * sum = fma(scale, that, sum), then for types with a minimum fma(minimum, the block's sum of
///     x, sum), which is made by the same four products with all codes being 1.
///   * Strand s of 16 has blocks [B s / 16, B (s + 1) / 16) of B, in order, from zero. The strands
///     are added one after the other.
///
/// Activations of 2^118 (3e35) and more may overflow in a block's sum, whatever the scale.
/// `enough_blocks`: of kEnoughBlocks.
cudaError_t Q4Product(float* out, int64_t out_stride, const float* x, int64_t rows,
                      const MatrixView& w, cudaStream_t stream,
                      int64_t enough_blocks = kEnoughBlocks);

}  // namespace asymserve::cuda
