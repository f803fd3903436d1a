#include "engine/backend/cuda/gather_rows.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/stored_type.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 128;

/// A block for a row.
template <typename Type>
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(float* out, const void* table, const int32_t* index, int32_t cols) {
  const int64_t row = blockIdx.x;
  const auto* from = static_cast<const typename Type::Stored*>(table) + int64_t{index[row]} * cols;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < cols; i += kThreads) {
    out[row * cols + i] = Type::Value(from[i]);
  }
}

}  // namespace

cudaError_t GatherRows(float* out, const void* table, DType type, const int32_t* index,
                       int64_t rows, int32_t cols, cudaStream_t stream) {
  if (rows == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(rows));
  const dim3 block(kThreads);
  switch (type) {
    case DType::kF32:
      return Launch<GatherRowsKernel<Float32>>(grid, block, 0, stream, out, table, index, cols);
    case DType::kF16:
      return Launch<GatherRowsKernel<Float16>>(grid, block, 0, stream, out, table, index, cols);
    case DType::kBF16:
      return Launch<GatherRowsKernel<Brain16>>(grid, block, 0, stream, out, table, index, cols);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace asymserve::cuda
