#include "engine/backend/cuda/gather_rows.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/q4_decode.cuh"
#include "engine/backend/cuda/stored_type.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 128;

/// A block for a row.
template <typename Type>
__global__ void __launch_bounds__(kThreads)
    GatherRowsKernel(float* out, const void* table, const int32_t* index, int32_t cols) {
  AwaitEarlierKernels();
  const int64_t row = blockIdx.x;
  const auto* from = static_cast<const typename Type::Stored*>(table) + int64_t{index[row]} * cols;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < cols; i += kThreads) {
    out[row * cols + i] = Type::Value(from[i]);
  }
}

__global__ void __launch_bounds__(kThreads)
    GatherQ4RowsKernel(float* out, const void* table, DType type, Q4Layout layout,
                       const int32_t* index, int32_t cols) {
  AwaitEarlierKernels();
  const int64_t row = blockIdx.x;
  const int32_t from = index[row];
  const int32_t in_tile = from % kQ4TileRows;
  const auto* tile = static_cast<const uint8_t*>(table) + from / kQ4TileRows * layout.tile_bytes;
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < cols; i += kThreads) {
    const int32_t block = i / kQ4Block;
    const Q4ScaleWords words = LoadScales(layout, type, tile, block, in_tile % kQ4RowGroups);
    Q4Scale scale = {};
    ASYMSERVE_UNROLL
    for (int of = 0; of < kQ4LaneRows; ++of) {
      if (of == in_tile / kQ4RowGroups) scale = ScaleOf(type, words, of);
    }
    const int32_t in_block = i % kQ4Block;
    const uint32_t codes = tile[layout.CodeByteAt(block, in_tile, in_block % kQ4CodeBytes)];
    const float code = CodeAt(codes, in_block / kQ4CodeBytes * 4);
    out[row * cols + i] = fmaf(code, scale.scale, scale.minimum);
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
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ4K:
      return Launch<GatherQ4RowsKernel>(grid, block, 0, stream, out, table, type,
                                        Q4Layout(type, cols), index, cols);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace asymserve::cuda
