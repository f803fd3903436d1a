#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/tensor_products.cuh"
#include "engine/backend/cuda/warp.cuh"

// Products for few rows of x, which wait for the weights: a block has 32 outputs, a warp a strand
// of their sums. Each warp copies its weights, and its part of x, blocks ahead to a ring of its
// own in shared memory, so that bytes in flight take no registers.

namespace asymserve::cuda {

inline constexpr int32_t kFewWarps = kProductStrands;
inline constexpr int kFewThreads = kFewWarps * kWarpLanes;

/// 16 bytes each, of a stage.
template <typename Weights, int kTiles>
constexpr int32_t kStageQuads = Weights::kStageQuads + kTiles* kInputQuads<Weights>;

/// How many stages a ring has. Of 4-bit weights and one tile of rows, as many as leave room for two
/// thread blocks on a multiprocessor of sm_90; otherwise for one on sm_80. Weights of 2 KiB a stage
/// are enough in flight when a warp waits for one.
template <typename Weights, int kTiles>
constexpr int32_t kRingStages = Weights::kStageQuads >= 4 * kWarpLanes ? 2 : 5 - kTiles;

/// One warp's strand: the products of a tile of outputs and kTiles of rows of x. It is copied block
/// after block, so that what is next is an addition away.
template <typename Weights, int kTiles>
class Strand {
 public:
  static constexpr int32_t kStages = kRingStages<Weights, kTiles>;
  static constexpr int32_t kQuads = kStageQuads<Weights, kTiles>;

  /// From block `begin` of columns on; a last tile of x stands for others.
  __device__ Strand(const ProductArgs& args, const Weights& weights, SharedSlice<FourWords> ring,
                    int64_t first_tile, int32_t tile, int32_t begin)
      : weights_(weights),
        ring_(ring),
        first_quad_(static_cast<int32_t>(threadIdx.x) / kWarpLanes * kStages * kQuads),
        lane_(static_cast<int32_t>(threadIdx.x) % kWarpLanes),
        begin_(begin),
        next_(weights, tile, begin, lane_) {
    const int64_t last = (args.rows - 1) / kTileInputs;
    ASYMSERVE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const int64_t of_x = first_tile + t < last ? first_tile + t : last;
      next_x_[t] = InputCursor<Weights>(args, of_x, begin, lane_);
    }
  }

  /// Adds the blocks to before `end` to sums [tile of rows][half of the tile of outputs].
  __device__ __forceinline__ void Add(int32_t end, float (&sums)[kTiles][2][4]) {
    ASYMSERVE_UNROLL
    for (int32_t i = 0; i < kStages - 1; ++i) {
      if (begin_ + i < end) CopyNext(i);
      CopyCommit();
    }
    int32_t stage = 0;
    ASYMSERVE_KEEP_LOOP
    for (int32_t block = begin_; block < end; ++block) {
      CopyWait<kStages - 2>();
      __syncwarp();  // the stage is there, and all have read the one before it
      const int32_t free = stage == 0 ? kStages - 1 : stage - 1;
      if (block + kStages - 1 < end) CopyNext(free);
      CopyCommit();
      AddStage(stage, sums);
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
  }

 private:
  __device__ __forceinline__ int32_t QuadOf(int32_t stage) const {
    return first_quad_ + stage * kQuads;
  }
  __device__ __forceinline__ int32_t InputsAt(int32_t stage, int t) const {
    return QuadOf(stage) + Weights::kStageQuads + t * kInputQuads<Weights>;
  }
  __device__ __forceinline__ void CopyNext(int32_t stage) {
    const SharedArray<FourWords> ring = Shared("ring", ring_);
    next_.Copy(ring + QuadOf(stage), lane_);
    ASYMSERVE_UNROLL
    for (int t = 0; t < kTiles; ++t) next_x_[t].Copy(ring, InputsAt(stage, t), lane_);
  }
  __device__ __forceinline__ void AddStage(int32_t stage, float (&sums)[kTiles][2][4]) const {
    const typename Weights::Block block = weights_.Staged(ring_, QuadOf(stage), lane_);
    typename Weights::template Decoded<2> decoded;
    weights_.Decode(block, decoded, 0);
    ASYMSERVE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      Weights::Add(decoded, LoadInputs<Weights>(ring_, InputsAt(stage, t), lane_), sums[t]);
    }
  }

  const Weights& weights_;
  const SharedSlice<FourWords> ring_;
  const int32_t first_quad_;
  const int32_t lane_;
  const int32_t begin_;
  typename Weights::Cursor next_;  // what is copied next
  InputCursor<Weights> next_x_[kTiles];
};

/// A block for a tile of outputs and kTiles of rows of x.
template <typename Weights, int kTiles>
__global__ void __launch_bounds__(kFewThreads, kTiles == 1 ? 2 : 1)
    FewRowsKernel(ProductArgs args, Weights weights, SharedSlice<FourWords> ring) {
  AwaitEarlierKernels();
  constexpr int32_t kRows = kTiles * kTileInputs;
  constexpr int32_t kStride = kTileOutputs + 4;  // so that lanes that store meet no bank twice
  constexpr int32_t kWarpFloats = 4 * kStageQuads<Weights, kTiles> * kRingStages<Weights, kTiles>;
  static_assert(kRows * kStride <= kWarpFloats);
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t warp = thread / kWarpLanes;
  const int32_t lane = thread % kWarpLanes;
  const int64_t first_row = int64_t{blockIdx.x % args.row_tiles} * kRows;
  const auto tile = static_cast<int32_t>(blockIdx.x / args.row_tiles);

  float sums[kTiles][2][4] = {};
  Strand<Weights, kTiles>(args, weights, ring, first_row / kTileInputs, tile,
                          StrandBegin(args.blocks, warp))
      .Add(StrandBegin(args.blocks, warp + 1), sums);

  // The warp's sums, [kRows][kStride], where its ring was.
  const SharedArray<float> parts = Shared<float>("parts", {ring.offset, 4 * ring.count});
  __syncwarp();
  ASYMSERVE_UNROLL
  for (int half = 0; half < 2; ++half) {
    ASYMSERVE_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int32_t row = t * kTileInputs + lane % 4 * 2 + i % 2;
        const int32_t output = half * 16 + i / 2 * 8 + lane / 4;
        parts[warp * kWarpFloats + row * kStride + output] = sums[t][half][i];
      }
    }
  }
  __syncthreads();
  const int32_t row = thread / kTileOutputs;
  const int64_t output = int64_t{tile} * kTileOutputs + thread % kTileOutputs;
  if (row >= kRows || first_row + row >= args.rows || output >= args.outputs) return;
  float sum = 0.0f;
  for (int32_t w = 0; w < kFewWarps; ++w) {
    sum += parts[w * kWarpFloats + row * kStride + thread % kTileOutputs];
  }
  args.out[(first_row + row) * args.out_stride + output] = sum * args.x.scales[first_row + row];
}

template <typename Weights, int kTiles>
cudaError_t LaunchFewRows(ProductArgs args, const Weights& weights, cudaStream_t stream) {
  constexpr int64_t kMostBlocks = 0x7FFFFFFF;
  constexpr int32_t kRows = kTiles * kTileInputs;
  static_assert(kRows * kTileOutputs <= kFewThreads);
  const int64_t row_tiles = (args.rows + kRows - 1) / kRows;
  const int64_t blocks = (int64_t{args.outputs} + kTileOutputs - 1) / kTileOutputs * row_tiles;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  args.row_tiles = static_cast<uint32_t>(row_tiles);
  SharedPlan plan;
  const auto ring = plan.Take<FourWords>(int64_t{kFewWarps} * kStageQuads<Weights, kTiles> *
                                         kRingStages<Weights, kTiles>);
  return Launch<FewRowsKernel<Weights, kTiles>>(dim3(static_cast<unsigned>(blocks)),
                                                dim3(kFewThreads), plan.bytes(), stream, args,
                                                weights, ring);
}

}  // namespace asymserve::cuda
