#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/product_inputs.cuh"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/warp.cuh"

// Products for many rows of x, in the order of few_rows.cuh. A block has 64 rows and, by the type
// of the weights, 128 or 256 outputs: 2 x 4 warps, each with 32 rows. A chunk of columns of x is
// split once, into the B fragments that the warps then read, while they multiply the chunk before
// it. Weights come straight from global memory, a block of columns ahead, and are decoded once for
// 32 rows. A warp sums one strand after the other.

namespace asymserve::cuda {

inline constexpr int32_t kOutputWarps = 4;
inline constexpr int32_t kRowWarps = 2;
inline constexpr int32_t kManyWarps = kOutputWarps * kRowWarps;
inline constexpr int kManyThreads = kManyWarps * kWarpLanes;
inline constexpr int32_t kRowTiles = 8;  // of 8 rows, of a thread block; a warp splits one
inline constexpr int32_t kWarpRowTiles = kRowTiles / kRowWarps;
inline constexpr int32_t kManyRows = kRowTiles * kTileInputs;
inline constexpr int32_t kChunk = 4;  // blocks of columns
static_assert(kRowTiles == kManyWarps);

struct ManyRowsShared {
  SharedSlice<FourFloats> raw;     // [kManyWarps][kChunk][2][32]: as they came, of a lane
  SharedSlice<FourWords> inputs;   // [2][kChunk][kRowTiles][2][32]: high and low parts of lanes
  SharedSlice<TwoFloats> sums;     // [2][kChunk][kRowTiles][4]: of the rows of a lane
  SharedSlice<FourFloats> totals;  // [2 kWarpTiles x kWarpRowTiles][kManyThreads]: of a lane
};

/// The warp's part of x on its way to fragments in shared memory.
template <typename Weights>
class InputChunks {
 public:
  __device__ InputChunks(const ProductArgs& args, int64_t first_row, const ManyRowsShared& shared)
      : blocks_(args.blocks), shared_(shared) {
    const int64_t row = first_row + warp_ * kTileInputs + lane_ / 4;
    row_ = row < args.rows ? args.x + row * blocks_ * kProductBlock : nullptr;
  }

  /// Begins to copy a chunk, if there is one; what was copied before has been split.
  __device__ __forceinline__ void Copy(int32_t chunk) const {
    const SharedArray<FourFloats> raw = Raw();
    ASYMSERVE_UNROLL
    for (int32_t b = 0; b < kChunk; ++b) {
      const int32_t block = chunk * kChunk + b;
      if (block >= blocks_ || row_ == nullptr) continue;
      ASYMSERVE_UNROLL
      for (int i = 0; i < 2; ++i) {
        CopyAsync16(raw, (2 * b + i) * kWarpLanes,
                    row_ + int64_t{block} * kProductBlock + 4 * Weights::InputQuad(lane_ % 4, i));
      }
    }
    CopyCommit();
  }
  /// Splits the chunk that was copied, which others may read after a barrier.
  __device__ __forceinline__ void Split(int32_t chunk) const {
    CopyWait<0>();
    const SharedArray<FourFloats> raw = Raw();
    const SharedArray<FourWords> inputs = Shared("inputs", shared_.inputs);
    ASYMSERVE_KEEP_LOOP
    for (int32_t b = 0; b < kChunk; ++b) {
      if (chunk * kChunk + b >= blocks_) break;
      FourFloats x[2] = {};
      if (row_ != nullptr) {
        x[0] = raw[2 * b * kWarpLanes];
        x[1] = raw[(2 * b + 1) * kWarpLanes];
      }
      const SplitInputs split = cuda::Split<Weights::kInterleaved>(x);
      const int32_t tile = (chunk % 2 * kChunk + b) * kRowTiles + warp_;
      inputs[2 * tile * kWarpLanes + lane_] = split.high;
      inputs[(2 * tile + 1) * kWarpLanes + lane_] = split.low;
      if constexpr (Weights::kHasMinimum) {
        const TwoFloats sums = SumInputs(split);
        if (lane_ < 4) Shared("sums", shared_.sums)[tile * 4 + lane_] = sums;
      }
    }
  }

 private:
  __device__ __forceinline__ SharedArray<FourFloats> Raw() const {
    return Shared("raw", shared_.raw) + (warp_ * kChunk * 2 * kWarpLanes + lane_);
  }

  const int32_t warp_ = static_cast<int32_t>(threadIdx.x) / kWarpLanes;
  const int32_t lane_ = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  const int32_t blocks_;
  const ManyRowsShared& shared_;
  const float* row_;
};

/// The sums of a warp: Weights::kWarpTiles of outputs, kWarpRowTiles of rows.
template <typename Weights>
class WarpSums {
 public:
  __device__ WarpSums(const ProductArgs& args, const Weights& weights, int32_t first_tile,
                      int32_t first_row_tile, const ManyRowsShared& shared)
      : args_(args), weights_(weights), first_row_tile_(first_row_tile), shared_(shared) {
    const int32_t last = (args.outputs - 1) / kTileOutputs;
    ASYMSERVE_UNROLL
    for (int i = 0; i < kTiles; ++i) {
      tiles_[i] = first_tile + i < last ? first_tile + i : last;  // a last one stands for others
      next_[i] = weights.Load(tiles_[i], 0, lane_);
    }
    NextStrand(0);
    const SharedArray<FourFloats> totals = Totals();
    for (int i = 0; i < kHalves * kWarpRowTiles; ++i) totals[i * kManyThreads] = {};
  }

  /// Of a chunk that has been split.
  __device__ __forceinline__ void Add(int32_t chunk) {
    const int32_t first = chunk * kChunk;
    const int32_t end = first + kChunk < args_.blocks ? first + kChunk : args_.blocks;
    ASYMSERVE_KEEP_LOOP
    for (int32_t block = first; block < end; ++block) {
      AddBlock(block, chunk % 2 * kChunk + block - first);
      if (block + 1 == strand_end_) EndStrand();
    }
  }
  __device__ __forceinline__ void Store(int64_t first_row, int32_t first_tile) const {
    const SharedArray<FourFloats> totals = Totals();
    ASYMSERVE_UNROLL
    for (int m = 0; m < kHalves; ++m) {
      ASYMSERVE_UNROLL
      for (int n = 0; n < kWarpRowTiles; ++n) {
        const FourFloats sums = totals[(m * kWarpRowTiles + n) * kManyThreads];
        ASYMSERVE_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int64_t output =
              int64_t{first_tile} * kTileOutputs + m * 16 + i / 2 * 8 + lane_ / 4;
          const int64_t row =
              first_row + (first_row_tile_ + n) * kTileInputs + lane_ % 4 * 2 + i % 2;
          if (row < args_.rows && output < args_.outputs) {
            args_.out[row * args_.out_stride + output] = sums.of[i];
          }
        }
      }
    }
  }

 private:
  static constexpr int kTiles = Weights::kWarpTiles;
  static constexpr int kHalves = 2 * kTiles;

  __device__ __forceinline__ void AddBlock(int32_t block, int32_t in_buffer) {
    typename Weights::template Decoded<kHalves> decoded;
    ASYMSERVE_UNROLL
    for (int i = 0; i < kTiles; ++i) weights_.LoadLate(next_[i], tiles_[i], block, lane_);
    ASYMSERVE_UNROLL
    for (int i = 0; i < kTiles; ++i) weights_.Decode(next_[i], decoded, 2 * i);
    if (block + 1 < args_.blocks) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < kTiles; ++i) next_[i] = weights_.Load(tiles_[i], block + 1, lane_);
    }
    const SharedArray<FourWords> inputs = Shared("inputs", shared_.inputs);
    ASYMSERVE_UNROLL
    for (int n = 0; n < kWarpRowTiles; ++n) {
      const int32_t tile = in_buffer * kRowTiles + first_row_tile_ + n;
      const SplitInputs x = {inputs[2 * tile * kWarpLanes + lane_],
                             inputs[(2 * tile + 1) * kWarpLanes + lane_]};
      TwoFloats input_sums = {};
      if constexpr (Weights::kHasMinimum) {
        input_sums = Shared("sums", shared_.sums)[tile * 4 + lane_ % 4];
      }
      Weights::Add(decoded, x, input_sums, sums_[n]);
    }
  }
  /// Those of strands that have ended; no other thread's.
  __device__ __forceinline__ SharedArray<FourFloats> Totals() const {
    return Shared("totals", shared_.totals) + static_cast<int32_t>(threadIdx.x);
  }
  __device__ __forceinline__ void EndStrand() {
    NextStrand(strand_end_);
    const SharedArray<FourFloats> totals = Totals();
    ASYMSERVE_UNROLL
    for (int m = 0; m < kHalves; ++m) {
      ASYMSERVE_UNROLL
      for (int n = 0; n < kWarpRowTiles; ++n) {
        const int32_t place = (m * kWarpRowTiles + n) * kManyThreads;
        FourFloats total = totals[place];
        ASYMSERVE_UNROLL
        for (int i = 0; i < 4; ++i) {
          total.of[i] += sums_[n][m][i];
          sums_[n][m][i] = 0.0f;
        }
        totals[place] = total;
      }
    }
  }
  /// On to the next strand that ends beyond `block`: one without columns would add zero.
  __device__ __forceinline__ void NextStrand(int32_t block) {
    while (strand_ < kProductStrands && strand_end_ <= block) {
      strand_end_ = StrandBegin(args_.blocks, ++strand_);
    }
  }

  const ProductArgs& args_;
  const Weights& weights_;
  const int32_t first_row_tile_;
  const ManyRowsShared& shared_;
  const int32_t lane_ = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  int32_t strand_ = 0;
  int32_t strand_end_ = 0;
  int32_t tiles_[kTiles];
  typename Weights::Block next_[kTiles];
  float sums_[kWarpRowTiles][kHalves][4] = {};
};

template <typename Weights>
__global__ void __launch_bounds__(kManyThreads, 1)
    ManyRowsKernel(ProductArgs args, Weights weights, ManyRowsShared shared) {
  AwaitEarlierKernels();
  const int32_t warp = static_cast<int32_t>(threadIdx.x) / kWarpLanes;
  const int64_t first_row = int64_t{blockIdx.x % args.row_tiles} * kManyRows;
  const int32_t first_tile =
      (static_cast<int32_t>(blockIdx.x / args.row_tiles) * kOutputWarps + warp / kRowWarps) *
      Weights::kWarpTiles;
  const int32_t first_row_tile = warp % kRowWarps * kWarpRowTiles;
  const bool has_work = int64_t{first_tile} * kTileOutputs < args.outputs &&
                        first_row + first_row_tile * kTileInputs < args.rows;
  const InputChunks<Weights> chunks(args, first_row, shared);
  WarpSums<Weights> sums(args, weights, first_tile, first_row_tile, shared);
  const int32_t count = (args.blocks + kChunk - 1) / kChunk;
  chunks.Copy(0);
  chunks.Split(0);
  chunks.Copy(1);
  __syncthreads();
  ASYMSERVE_KEEP_LOOP
  for (int32_t chunk = 0; chunk < count; ++chunk) {
    if (chunk + 1 < count) {
      chunks.Split(chunk + 1);
      chunks.Copy(chunk + 2);
    }
    if (has_work) sums.Add(chunk);
    __syncthreads();
  }
  if (has_work) sums.Store(first_row, first_tile);
}

/// Thread blocks that it takes.
template <typename Weights>
int64_t ManyRowsBlocks(const ProductArgs& args) {
  constexpr int32_t kOutputs = kOutputWarps * Weights::kWarpTiles * kTileOutputs;
  return (int64_t{args.outputs} + kOutputs - 1) / kOutputs *
         ((args.rows + kManyRows - 1) / kManyRows);
}

template <typename Weights>
cudaError_t LaunchManyRows(ProductArgs args, const Weights& weights, cudaStream_t stream) {
  constexpr int64_t kMostBlocks = 0x7FFFFFFF;
  const int64_t blocks = ManyRowsBlocks<Weights>(args);
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  args.row_tiles = static_cast<uint32_t>((args.rows + kManyRows - 1) / kManyRows);
  constexpr int64_t kUnits = int64_t{kChunk} * kRowTiles;
  SharedPlan plan;
  ManyRowsShared shared;
  shared.raw = plan.Take<FourFloats>(kUnits * 2 * kWarpLanes);
  shared.inputs = plan.Take<FourWords>(2 * kUnits * 2 * kWarpLanes);
  shared.sums = plan.Take<TwoFloats>(Weights::kHasMinimum ? 2 * kUnits * 4 : 0);
  constexpr int64_t kLaneTotals = 2 * Weights::kWarpTiles * kWarpRowTiles;
  shared.totals = plan.Take<FourFloats>(kLaneTotals * kManyThreads);
  return Launch<ManyRowsKernel<Weights>>(dim3(static_cast<unsigned>(blocks)), dim3(kManyThreads),
                                         plan.bytes(), stream, args, weights, shared);
}

}  // namespace asymserve::cuda
