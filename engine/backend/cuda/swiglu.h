#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"

namespace asymserve::cuda {

/// out [rows][cols] = silu(gate) * up with gate_up [rows][2 cols] = gate | up; device memory.
/// `blocks_in_y`: of the grid at most; each takes every so many rows.
cudaError_t SwiGlu(float* out, const float* gate_up, int64_t rows, int32_t cols,
                   cudaStream_t stream, int64_t blocks_in_y = kMostBlocksInY);

}  // namespace asymserve::cuda
