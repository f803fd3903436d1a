#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/tensor_products.cuh"
#include "engine/backend/cuda/warp.cuh"

// Products for many rows of x, in the order of few_rows.cuh. A block has 64 rows and, by the type
// of the weights, 128 or 256 outputs: 2 x 4 warps, each with 32 rows. Chunks of columns of x are
// copied to a ring of three, from which all warps of a block read, two chunks ahead. Weights come
// straight from global memory, a block of columns ahead, and are decoded once for 32 rows. A warp
// sums one strand after the other.

namespace asymserve::cuda {

inline constexpr int32_t kOutputWarps = 4;
inline constexpr int32_t kRowWarps = 2;
inline constexpr int32_t kManyWarps = kOutputWarps * kRowWarps;
inline constexpr int kManyThreads = kManyWarps * kWarpLanes;
inline constexpr int32_t kRowTiles = 8;  // of 8 rows, of a thread block; a warp copies one
inline constexpr int32_t kWarpRowTiles = kRowTiles / kRowWarps;
inline constexpr int32_t kManyRows = kRowTiles * kTileInputs;
inline constexpr int32_t kChunk = 4;         // blocks of columns
inline constexpr int32_t kChunkBuffers = 3;  // one is read, one is there, one is on its way
static_assert(kRowTiles == kManyWarps);

struct ManyRowsShared {
  SharedSlice<FourWords> inputs;   // [kChunkBuffers][kChunk][kRowTiles][kInputQuads]
  SharedSlice<FourFloats> totals;  // [2 kWarpTiles x kWarpRowTiles][kManyThreads]: of a lane
};

/// Where a block of columns of a tile of x is in `inputs`.
template <typename Weights>
__device__ __forceinline__ int32_t InputsAt(int32_t chunk, int32_t of_chunk, int32_t tile) {
  return ((chunk % kChunkBuffers * kChunk + of_chunk) * kRowTiles + tile) * kInputQuads<Weights>;
}

/// The warp's part of x on its way to shared memory; a last tile of x stands for others.
template <typename Weights>
class InputChunks {
 public:
  __device__ InputChunks(const ProductArgs& args, int64_t first_row, const ManyRowsShared& shared)
      : blocks_(args.blocks), shared_(shared) {
    const int64_t tile = first_row / kTileInputs + warp_;
    const int64_t last = (args.rows - 1) / kTileInputs;
    next_ = InputCursor<Weights>(args, tile < last ? tile : last, 0, lane_);
  }

  /// Begins to copy the next chunk, if there is one.
  __device__ __forceinline__ void Copy(int32_t chunk) {
    ASYMSERVE_UNROLL
    for (int32_t b = 0; b < kChunk; ++b) {
      if (chunk * kChunk + b >= blocks_) break;
      next_.Copy(Shared("inputs", shared_.inputs), InputsAt<Weights>(chunk, b, warp_), lane_);
    }
    CopyCommit();
  }

 private:
  const int32_t warp_ = static_cast<int32_t>(threadIdx.x) / kWarpLanes;
  const int32_t lane_ = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  const int32_t blocks_;
  const ManyRowsShared& shared_;
  InputCursor<Weights> next_;
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

  /// Of a chunk that is there.
  __device__ __forceinline__ void Add(int32_t chunk) {
    const int32_t first = chunk * kChunk;
    const int32_t end = first + kChunk < args_.blocks ? first + kChunk : args_.blocks;
    ASYMSERVE_KEEP_LOOP
    for (int32_t block = first; block < end; ++block) {
      AddBlock(block, InputsAt<Weights>(chunk, block - first, first_row_tile_));
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
            args_.out[row * args_.out_stride + output] = sums.of[i] * args_.x.scales[row];
          }
        }
      }
    }
  }

 private:
  static constexpr int kTiles = Weights::kWarpTiles;
  static constexpr int kHalves = 2 * kTiles;

  __device__ __forceinline__ void AddBlock(int32_t block, int32_t inputs) {
    typename Weights::template Decoded<kHalves> decoded;
    ASYMSERVE_UNROLL
    for (int i = 0; i < kTiles; ++i) weights_.LoadLate(next_[i], tiles_[i], block, lane_);
    ASYMSERVE_UNROLL
    for (int i = 0; i < kTiles; ++i) weights_.Decode(next_[i], decoded, 2 * i);
    if (block + 1 < args_.blocks) {
      ASYMSERVE_UNROLL
      for (int i = 0; i < kTiles; ++i) next_[i] = weights_.Load(tiles_[i], block + 1, lane_);
    }
    ASYMSERVE_UNROLL
    for (int n = 0; n < kWarpRowTiles; ++n) {
      Weights::Add(decoded,
                   LoadInputs<Weights>(shared_.inputs, inputs + n * kInputQuads<Weights>, lane_),
                   sums_[n]);
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
  InputChunks<Weights> chunks(args, first_row, shared);
  WarpSums<Weights> sums(args, weights, first_tile, first_row_tile, shared);
  const int32_t count = (args.blocks + kChunk - 1) / kChunk;
  chunks.Copy(0);
  chunks.Copy(1);
  ASYMSERVE_KEEP_LOOP
  for (int32_t chunk = 0; chunk < count; ++chunk) {
    CopyWait<1>();
    __syncthreads();  // the chunk is there, and all have read the one before it
    chunks.Copy(chunk + 2);
    if (has_work) sums.Add(chunk);
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
  SharedPlan plan;
  ManyRowsShared shared;
  shared.inputs =
      plan.Take<FourWords>(int64_t{kChunkBuffers} * kChunk * kRowTiles * kInputQuads<Weights>);
  constexpr int64_t kLaneTotals = 2 * Weights::kWarpTiles * kWarpRowTiles;
  shared.totals = plan.Take<FourFloats>(kLaneTotals * kManyThreads);
  return Launch<ManyRowsKernel<Weights>>(dim3(static_cast<unsigned>(blocks)), dim3(kManyThreads),
                                         plan.bytes(), stream, args, weights, shared);
}

}  // namespace asymserve::cuda
