#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/matrix_view.h"

namespace asymserve::cuda {

inline constexpr int32_t kDenseBlock = 32;  // columns

/// Whether DenseProduct takes such a weight: F16 or BF16, whole blocks of columns, at a multiple of
/// 16 bytes. It is asked of the weight alone, so that all rows are summed in one way.
inline bool IsForDenseProduct(const MatrixView& w) {
  return (w.type == DType::kF16 || w.type == DType::kBF16) && w.cols % kDenseBlock == 0 &&
         reinterpret_cast<uintptr_t>(w.data) % 16 == 0;
}

/// As Product, by tensor cores: cudaErrorInvalidValue for other weights than IsForDenseProduct's
/// and for x that is at no multiple of 16 bytes.
///
/// An activation is the sum of two bf16 as in q4_products.h, an F16 weight exactly that of two.
/// Blocks of 32 columns and strands are those of q4_products.h; the products of a block are summed
/// from zero by four mma.m16n8k16, an F16 weight's second parts by four more after them, and added
/// to the strand's sum. A row of `out` depends on its own row of x only, bit for bit.
/// `enough_blocks`: of kEnoughBlocks.
cudaError_t DenseProduct(float* out, int64_t out_stride, const float* x, int64_t rows,
                         const MatrixView& w, cudaStream_t stream,
                         int64_t enough_blocks = kEnoughBlocks);

}  // namespace asymserve::cuda
