#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/products.h"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/stored_type.cuh"

namespace asymserve::cuda {
namespace {

// The plain version: a tile of 16 rows of x and 64 of w at a time, 32 columns after the other, as
// floats in shared memory. No tensor cores.
constexpr int kThreads = 128;
constexpr int32_t kRows = 16;
constexpr int32_t kOutputs = 64;
constexpr int32_t kDepth = 32;
constexpr int32_t kThreadRows = kRows * kOutputs / kThreads;
constexpr int32_t kStride = kOutputs + 1;  // so that lanes that store a column meet no bank twice

struct ProductShared {
  SharedSlice<float> x;  // [kRows][kDepth]
  SharedSlice<float> w;  // [kDepth][kStride]
};

struct ProductArgs {
  float* out;
  int64_t out_stride;
  const float* x;
  int64_t rows;
  MatrixView w;
};

__device__ __forceinline__ float WeightAt(const MatrixView& w, int64_t index) {
  if (w.type == DType::kF32) return static_cast<const float*>(w.data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(w.data)[index];
  return w.type == DType::kF16 ? Float16::Value(bits) : Brain16::Value(bits);
}

/// Block (x, y): outputs from kOutputs x on of rows from kRows y on. Thread t: output t % kOutputs
/// of kThreadRows rows.
__global__ void __launch_bounds__(kThreads) ProductKernel(ProductArgs args, ProductShared shared) {
  AwaitEarlierKernels();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int64_t first_row = int64_t{blockIdx.y} * kRows;
  const auto first_output = static_cast<int32_t>(blockIdx.x * kOutputs);
  const int32_t cols = args.w.cols;
  const SharedArray<float> x = Shared("x", shared.x);
  const SharedArray<float> w = Shared("w", shared.w);
  const int32_t output = thread % kOutputs;
  const int32_t row = thread / kOutputs * kThreadRows;
  const int64_t left = args.rows - first_row - row;  // rows of the thread that there are
  float sums[kThreadRows] = {};
  for (int32_t first = 0; first < cols; first += kDepth) {
    const int32_t depth = cols - first < kDepth ? cols - first : kDepth;
    for (int32_t i = thread; i < kRows * kDepth; i += kThreads) {
      const int64_t r = first_row + i / kDepth;
      const int32_t k = first + i % kDepth;
      x[i] = r < args.rows && k < cols ? args.x[r * cols + k] : 0.0f;
    }
    for (int32_t i = thread; i < kOutputs * kDepth; i += kThreads) {
      const int32_t n = first_output + i / kDepth;
      const int32_t k = first + i % kDepth;
      w[i % kDepth * kStride + i / kDepth] =
          n < args.w.rows && k < cols ? WeightAt(args.w, int64_t{n} * cols + k) : 0.0f;
    }
    __syncthreads();
    for (int32_t k = 0; k < depth; ++k) {
      const float weight = w[k * kStride + output];
      for (int32_t r = 0; r < kThreadRows; ++r) {
        if (r < left) sums[r] = fmaf(x[(row + r) * kDepth + k], weight, sums[r]);
      }
    }
    __syncthreads();
  }
  if (first_output + output >= args.w.rows) return;
  for (int32_t r = 0; r < kThreadRows; ++r) {
    if (r >= left) return;
    args.out[(first_row + row + r) * args.out_stride + first_output + output] = sums[r];
  }
}

cudaError_t Run(ProductArgs args, cudaStream_t stream, int64_t blocks_in_y) {
  SharedPlan plan;
  ProductShared shared;
  shared.x = plan.Take<float>(kRows * kDepth);
  shared.w = plan.Take<float>(kDepth * kStride);
  const auto blocks_in_x = static_cast<unsigned>((args.w.rows + kOutputs - 1) / kOutputs);
  while (args.rows > 0) {
    const int64_t blocks = (args.rows + kRows - 1) / kRows;
    const int64_t now = blocks < blocks_in_y ? blocks : blocks_in_y;
    const cudaError_t error =
        Launch<ProductKernel>(dim3(blocks_in_x, static_cast<unsigned>(now)), dim3(kThreads),
                              plan.bytes(), stream, args, shared);
    if (error != cudaSuccess) return error;
    args.out += now * kRows * args.out_stride;
    args.x += now * kRows * args.w.cols;
    args.rows -= now * kRows;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t Product(float* out, int64_t out_stride, const float* x, int64_t rows,
                    const MatrixView& w, cudaStream_t stream, int64_t blocks_in_y) {
  const ProductArgs args = {out, out_stride, x, rows, w};
  const bool is_dense = w.type == DType::kF32 || w.type == DType::kF16 || w.type == DType::kBF16;
  return is_dense ? Run(args, stream, blocks_in_y) : cudaErrorInvalidValue;
}

}  // namespace asymserve::cuda
