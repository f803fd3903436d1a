#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/swiglu.h"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 256;

/// Block (x, y): the x-th kThreads columns of row y, y + gridDim.y ...
__global__ void __launch_bounds__(kThreads)
    SwiGluKernel(float* out, const float* gate_up, int64_t rows, int32_t cols) {
  AwaitEarlierKernels();
  const int32_t column = static_cast<int32_t>(blockIdx.x * kThreads + threadIdx.x);
  if (column >= cols) return;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const float gate = gate_up[row * 2 * cols + column];
    const float up = gate_up[row * 2 * cols + cols + column];
    out[row * cols + column] = gate / (1.0f + expf(-gate)) * up;
  }
}

}  // namespace

cudaError_t SwiGlu(float* out, const float* gate_up, int64_t rows, int32_t cols,
                   cudaStream_t stream, int64_t blocks_in_y) {
  if (rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>((cols + kThreads - 1) / kThreads),
                  static_cast<unsigned>(rows < blocks_in_y ? rows : blocks_in_y));
  return Launch<SwiGluKernel>(grid, dim3(kThreads), 0, stream, out, gate_up, rows, cols);
}

}  // namespace asymserve::cuda
