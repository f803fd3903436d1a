#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/rms_norm.h"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 1024;  // of few rows every one waits for its own loads

/// A block for a row. kAdd: `residual` gets `delta` on top first.
template <bool kAdd>
__global__ void __launch_bounds__(kThreads)
    RmsNormKernel(float* out, float* residual, const float* delta, const float* weight,
                  int32_t cols, float epsilon, SharedSlice<float> scratch) {
  AwaitEarlierKernels();
  const int64_t first = static_cast<int64_t>(blockIdx.x) * cols;
  float squares = 0.0f;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < cols; i += kThreads) {
    float x = residual[first + i];
    if (kAdd) {
      x += delta[first + i];
      residual[first + i] = x;
    }
    squares = fmaf(x, x, squares);
  }
  const float sum = BlockSum(squares, Shared("scratch", scratch));
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(cols) + epsilon);
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < cols; i += kThreads) {
    out[first + i] = residual[first + i] * inverse * weight[i];  // its own elements again
  }
}

template <bool kAdd>
cudaError_t Run(float* out, float* residual, const float* delta, const float* weight, int64_t rows,
                int32_t cols, float epsilon, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  SharedPlan plan;
  const SharedSlice<float> scratch = plan.Take<float>(kWarpLanes);
  return Launch<RmsNormKernel<kAdd>>(dim3(static_cast<unsigned>(rows)), dim3(kThreads),
                                     plan.bytes(), stream, out, residual, delta, weight, cols,
                                     epsilon, scratch);
}

}  // namespace

cudaError_t RmsNorm(float* out, const float* x, const float* weight, int64_t rows, int32_t cols,
                    float epsilon, cudaStream_t stream) {
  // Without kAdd the kernel only reads it.
  return Run<false>(out, const_cast<float*>(x), nullptr, weight, rows, cols, epsilon, stream);
}

cudaError_t AddRmsNorm(float* out, float* residual, const float* delta, const float* weight,
                       int64_t rows, int32_t cols, float epsilon, cudaStream_t stream) {
  return Run<true>(out, residual, delta, weight, rows, cols, epsilon, stream);
}

}  // namespace asymserve::cuda
