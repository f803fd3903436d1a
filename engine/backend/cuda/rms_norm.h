#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Matrices are dense, row-major and in device memory; zero rows launch nothing.

namespace asymserve::cuda {

/// out [rows][cols] = x / rms(x) * weight. `out` may be `x`.
cudaError_t RmsNorm(float* out, const float* x, const float* weight, int64_t rows, int32_t cols,
                    float epsilon, cudaStream_t stream);

/// residual += delta; out = RmsNorm(residual).
cudaError_t AddRmsNorm(float* out, float* residual, const float* delta, const float* weight,
                       int64_t rows, int32_t cols, float epsilon, cudaStream_t stream);

}  // namespace asymserve::cuda
