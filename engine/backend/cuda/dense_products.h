#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/matrix_view.h"
#include "engine/backend/cuda/product_inputs.h"

namespace asymserve::cuda {

inline constexpr int32_t kDenseBlock = 32;  // columns

/// Whether DenseProduct takes such a weight: F16 or BF16, whole blocks of columns, at a multiple of
/// 16 bytes. It is asked of the weight alone, so that all rows are summed in one way.
inline bool IsForDenseProduct(const MatrixView& w) {
  return (w.type == DType::kF16 || w.type == DType::kBF16) && w.cols % kDenseBlock == 0 &&
         reinterpret_cast<uintptr_t>(w.data) % 16 == 0;
}

inline constexpr InputOrder kDenseInputOrder = InputOrder::kNeighbours;

/// As Product, by tensor cores: cudaErrorInvalidValue for other weights than IsForDenseProduct's,
/// x as RoundInputs gives it in kDenseInputOrder.
///
/// BF16 weights are rounded to fp16: below 2^-14 they lose 2^-25 at most, from 65520 on they are
/// infinite. Blocks of 32 columns, strands and rows' powers of two are those of q4_products.h; the
/// products of a block are summed from zero by two mma.m16n8k16 and added to the strand's sum. A
/// row of `out` depends on its own row of x only, bit for bit. `enough_blocks`: of kEnoughBlocks.
cudaError_t DenseProduct(float* out, int64_t out_stride, const ProductInputs& x, int64_t rows,
                         const MatrixView& w, cudaStream_t stream,
                         int64_t enough_blocks = kEnoughBlocks);

}  // namespace asymserve::cuda
