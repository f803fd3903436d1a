#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/matrix_view.h"

namespace asymserve::cuda {

/// out [rows][w.rows] = x [rows][w.cols] times w transposed; a row of `out` begins `out_stride`
/// floats after the one before. Each element is one fused multiply-add after the other in order of
/// the columns, as on the CPU for such weights: its bits depend on its own row of x only.
/// cudaErrorInvalidValue for other types than kF32, kF16 and kBF16. `blocks_in_y`: of a launch.
cudaError_t Product(float* out, int64_t out_stride, const float* x, int64_t rows,
                    const MatrixView& w, cudaStream_t stream, int64_t blocks_in_y = kMostBlocksInY);

}  // namespace asymserve::cuda
