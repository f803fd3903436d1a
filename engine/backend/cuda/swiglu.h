#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace asymserve::cuda {

/// out [rows][cols] = silu(gate) * up with gate_up [rows][2 cols] = gate | up; device memory.
cudaError_t SwiGlu(float* out, const float* gate_up, int64_t rows, int32_t cols,
                   cudaStream_t stream);

}  // namespace asymserve::cuda
