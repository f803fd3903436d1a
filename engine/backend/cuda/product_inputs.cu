#include <bit>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/product_inputs.h"
#include "engine/backend/cuda/ptx.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int32_t kQuadColumns = 4;
constexpr int32_t kBlockQuads = kProductBlock / kQuadColumns;

int64_t TilesOf(int64_t rows) {
  return (rows + kTileInputs - 1) / kTileInputs;
}

struct alignas(8) TwoWords {
  uint32_t of[2];
};

/// What a row is divided by and multiplied with: its largest is 2^14 to 2^15 then.
struct RowScale {
  float inverse, scale;
};
__device__ __forceinline__ RowScale ScaleOf(float largest) {
  constexpr uint32_t kLeast = 15;  // as exponents are stored: 2^-112
  constexpr uint32_t kInfinite = 255;
  constexpr uint32_t kTop = 14;
  uint32_t exponent = std::bit_cast<uint32_t>(largest) >> 23;
  if (exponent == kInfinite) return {0.0f, std::bit_cast<float>(0x7FC00000u)};
  if (exponent < kLeast) exponent = kLeast;
  return {std::bit_cast<float>((2 * 127 + kTop - exponent) << 23),
          std::bit_cast<float>((exponent - kTop) << 23)};
}

/// A block for a row; those behind the last fill its tile.
template <bool kInterleaved>
__global__ void __launch_bounds__(kThreads)
    RoundInputsKernel(ProductInputs to, const float* x, int64_t rows, int32_t blocks,
                      SharedSlice<uint32_t> scratch) {
  AwaitEarlierKernels();
  const auto row = static_cast<int64_t>(blockIdx.x);
  const int64_t tile = row / kTileInputs;
  const auto row_of_tile = static_cast<int32_t>(row % kTileInputs);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t quads = blocks * kBlockQuads;
  const auto* from = reinterpret_cast<const FourFloats*>(x) + row * quads;
  const bool is_there = row < rows;

  // As integers magnitudes are in order, and NaN is above infinity.
  uint32_t largest = 0;
  for (int32_t q = thread; is_there && q < quads; q += kThreads) {
    const FourFloats four = from[q];
    ASYMSERVE_UNROLL
    for (int i = 0; i < kQuadColumns; ++i) {
      const uint32_t magnitude = std::bit_cast<uint32_t>(four.of[i]) & 0x7FFFFFFFu;
      largest = magnitude > largest ? magnitude : largest;
    }
  }
  const RowScale scale =
      ScaleOf(std::bit_cast<float>(BlockLargest(largest, Shared("scratch", scratch))));
  if (thread == 0) to.scales[row] = scale.scale;

  // Whole warps go round, for the eight lanes of a block of columns add up.
  for (int32_t first = 0; first < quads; first += kThreads) {
    const int32_t q = first + thread;
    const bool has_quad = q < quads;
    FourFloats four = {};
    if (is_there && has_quad) four = from[q];
    ASYMSERVE_UNROLL
    for (int i = 0; i < kQuadColumns; ++i) four.of[i] *= scale.inverse;
    const TwoWords words = {{PackHalves(four.of[0], four.of[kInterleaved ? 2 : 1]),
                             PackHalves(four.of[kInterleaved ? 1 : 2], four.of[3])}};
    float a = 0;
    float b = 0;
    float c = 0;
    float d = 0;
    UnpackHalves(words.of[0], a, b);
    UnpackHalves(words.of[1], c, d);
    float sum = kInterleaved ? (a + c) + (b + d) : (a + b) + (c + d);
    ASYMSERVE_UNROLL
    for (int bits = 1; bits < kBlockQuads; bits *= 2) {
      sum += __shfl_xor_sync(kWholeWarp, sum, bits);
    }
    if (!has_quad) continue;
    const int32_t block = q / kBlockQuads;
    const int32_t of_block = q % kBlockQuads;
    const int32_t t = kInterleaved ? of_block % 4 : of_block / 2;
    const int32_t half = kInterleaved ? of_block / 4 : of_block % 2;
    const int64_t unit = tile * blocks + block;
    auto* lanes = reinterpret_cast<TwoWords*>(to.fragments + unit * kWarpLanes);
    lanes[2 * (4 * row_of_tile + t) + half] = words;
    if (of_block == 0) to.sums[unit * kTileInputs + row_of_tile] = sum;
  }
}

template <bool kInterleaved>
cudaError_t Run(const ProductInputs& to, const float* x, int64_t rows, int64_t cols,
                cudaStream_t stream) {
  SharedPlan plan;
  const SharedSlice<uint32_t> scratch = plan.Take<uint32_t>(kWarpLanes);
  return Launch<RoundInputsKernel<kInterleaved>>(
      dim3(static_cast<unsigned>(TilesOf(rows) * kTileInputs)), dim3(kThreads), plan.bytes(),
      stream, to, x, rows, static_cast<int32_t>(cols / kProductBlock), scratch);
}

}  // namespace

int64_t ProductInputsBytes(int64_t rows, int64_t cols) {
  const int64_t units = TilesOf(rows) * (cols / kProductBlock);
  return units * (kWarpLanes * static_cast<int64_t>(sizeof(FourWords)) +
                  kTileInputs * static_cast<int64_t>(sizeof(float))) +
         TilesOf(rows) * kTileInputs * static_cast<int64_t>(sizeof(float));
}

ProductInputs PlaceProductInputs(std::byte* memory, int64_t rows, int64_t cols, InputOrder order) {
  const int64_t units = TilesOf(rows) * (cols / kProductBlock);
  ProductInputs inputs;
  inputs.fragments = reinterpret_cast<FourWords*>(memory);
  inputs.sums = reinterpret_cast<float*>(inputs.fragments + units * kWarpLanes);
  inputs.scales = inputs.sums + units * kTileInputs;
  inputs.order = order;
  return inputs;
}

cudaError_t RoundInputs(const ProductInputs& to, const float* x, int64_t rows, int64_t cols,
                        cudaStream_t stream) {
  constexpr int64_t kMostRows = 0x7FFFFFFF - kTileInputs;
  const bool is_aligned = reinterpret_cast<uintptr_t>(x) % sizeof(FourFloats) == 0;
  if (!is_aligned || cols % kProductBlock != 0) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  if (rows > kMostRows) return cudaErrorInvalidConfiguration;
  if (to.order == InputOrder::kInterleaved) return Run<true>(to, x, rows, cols, stream);
  return Run<false>(to, x, rows, cols, stream);
}

}  // namespace asymserve::cuda
