#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/q4_decode.cuh"
#include "engine/backend/cuda/q4_products.h"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int32_t kWarps = 8;
constexpr int kThreads = kWarps * kWarpLanes;
constexpr int32_t kWarpStrands = kWarpLanes / kQ4RowGroups;
static_assert(kWarps * kWarpStrands == kQ4Strands);

struct Q4Args {
  float* out;
  int64_t out_stride;
  const float* x;
  int64_t rows;
  uint32_t row_tiles;
  const uint8_t* tiles;
  Q4Layout layout;
  DType type;
  int32_t outputs;
};

struct alignas(16) FourFloats {
  float of[4];
};

/// What a lane reads of a block of columns: four rows of w.
struct LaneBlock {
  FourWords codes[kQ4LaneRows];
  Q4ScaleWords scales;
};

__device__ __forceinline__ LaneBlock Load(const Q4Args& args, const uint8_t* tile, int32_t block,
                                          int32_t group) {
  LaneBlock loaded;
  ASYMSERVE_UNROLL
  for (int i = 0; i < kQ4LaneRows; ++i) {
    loaded.codes[i] = LoadOnce(tile + args.layout.CodesAt(block, group + kQ4RowGroups * i));
  }
  loaded.scales = LoadScales(args.layout, args.type, tile, block, group);
  return loaded;
}

/// Adds the products of a block to the lane's sums, a weight decoded once for all rows of x. `x`:
/// the columns of the block.
template <int kRows>
__device__ __forceinline__ void AddBlock(LaneBlock block, DType type,
                                         const float* const (&x)[kRows],
                                         float (&sums)[kQ4LaneRows][kRows]) {
  constexpr int kWords = 4;
  Q4Scale scales[kQ4LaneRows];
  ASYMSERVE_UNROLL
  for (int i = 0; i < kQ4LaneRows; ++i) scales[i] = ScaleOf(type, block.scales, i);
  ASYMSERVE_KEEP_LOOP
  for (int half = 0; half < 2; ++half) {  // the columns in the low halves of bytes, then the others
    ASYMSERVE_UNROLL
    for (int word = 0; word < kWords; ++word) {
      FourFloats inputs[kRows];
      ASYMSERVE_UNROLL
      for (int t = 0; t < kRows; ++t) {
        inputs[t] = *reinterpret_cast<const FourFloats*>(x[t] + 4 * (kWords * half + word));
      }
      ASYMSERVE_UNROLL
      for (int i = 0; i < kQ4LaneRows; ++i) {
        uint32_t& codes = block.codes[i].of[word];
        ASYMSERVE_UNROLL
        for (int c = 0; c < 4; ++c) {
          const float weight = fmaf(CodeAt(codes, 8 * c), scales[i].scale, scales[i].minimum);
          ASYMSERVE_UNROLL
          for (int t = 0; t < kRows; ++t) sums[i][t] = fmaf(inputs[t].of[c], weight, sums[i][t]);
        }
        codes >>= 4;
      }
    }
  }
}

/// A block for a tile of 32 outputs and of kRows rows of x, the tiles of rows of the same outputs
/// one after the other. A lane has four outputs in one of 32 strands; eight lanes of a warp read
/// the same x.
template <int kRows>
__global__ void __launch_bounds__(kThreads, kRows <= 4 ? 2 : 1)
    Q4ProductKernel(Q4Args args, SharedSlice<float> slice) {
  AwaitEarlierKernels();
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const int32_t warp = thread / kWarpLanes;
  const int32_t lane = thread % kWarpLanes;
  const int32_t group = lane % kQ4RowGroups;
  const int64_t first_row = int64_t{blockIdx.x % args.row_tiles} * kRows;
  const int64_t tile_index = blockIdx.x / args.row_tiles;
  const uint8_t* tile = args.tiles + tile_index * args.layout.tile_bytes;
  const int64_t left = args.rows - first_row;  // rows that there are; the last stands for others
  const int64_t cols = int64_t{args.layout.blocks} * kQ4Block;
  const int32_t strand = warp * kWarpStrands + lane / kQ4RowGroups;
  const float* rows[kRows];
  ASYMSERVE_UNROLL
  for (int t = 0; t < kRows; ++t) rows[t] = args.x + (first_row + (t < left ? t : left - 1)) * cols;

  float sums[kQ4LaneRows][kRows] = {};
  LaneBlock next = {};
  if (strand < args.layout.blocks) next = Load(args, tile, strand, group);
  for (int32_t block = strand; block < args.layout.blocks; block += kQ4Strands) {
    const LaneBlock now = next;
    const int32_t ahead = block + kQ4Strands;
    if (ahead < args.layout.blocks) next = Load(args, tile, ahead, group);
    const float* x[kRows];
    ASYMSERVE_UNROLL
    for (int t = 0; t < kRows; ++t) x[t] = rows[t] + int64_t{block} * kQ4Block;
    AddBlock<kRows>(now, args.type, x, sums);
  }

  const SharedArray<float> parts = Shared("parts", slice);  // [kWarps][kRows][kQ4TileRows]
  ASYMSERVE_UNROLL
  for (int i = 0; i < kQ4LaneRows; ++i) {
    ASYMSERVE_UNROLL
    for (int t = 0; t < kRows; ++t) {
      float sum = sums[i][t];
      sum += __shfl_xor_sync(kWholeWarp, sum, kQ4RowGroups);
      sum += __shfl_xor_sync(kWholeWarp, sum, 2 * kQ4RowGroups);
      if (lane == group) {
        parts[(warp * kRows + t) * kQ4TileRows + group + kQ4RowGroups * i] = sum;
      }
    }
  }
  __syncthreads();
  const int32_t row = thread / kQ4TileRows;
  const int64_t output = tile_index * kQ4TileRows + thread % kQ4TileRows;
  if (row >= kRows || row >= left || output >= args.outputs) return;
  float sum = parts[thread];
  for (int32_t w = 1; w < kWarps; ++w) sum += parts[w * kRows * kQ4TileRows + thread];
  args.out[(first_row + row) * args.out_stride + output] = sum;
}

template <int kRows>
cudaError_t Run(Q4Args args, cudaStream_t stream) {
  static_assert(kRows * kQ4TileRows <= kThreads);
  constexpr int64_t kMostBlocks = 0x7FFFFFFF;
  const int64_t row_tiles = (args.rows + kRows - 1) / kRows;
  const int64_t blocks = Q4Tiles(args.outputs) * row_tiles;
  if (blocks > kMostBlocks) return cudaErrorInvalidConfiguration;
  args.row_tiles = static_cast<uint32_t>(row_tiles);
  SharedPlan plan;
  const auto parts = plan.Take<float>(int64_t{kWarps} * kRows * kQ4TileRows);
  return Launch<Q4ProductKernel<kRows>>(dim3(static_cast<unsigned>(blocks)), dim3(kThreads),
                                        plan.bytes(), stream, args, parts);
}

}  // namespace

cudaError_t Q4Product(float* out, int64_t out_stride, const float* x, int64_t rows,
                      const MatrixView& w, cudaStream_t stream) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(x) % sizeof(FourFloats) == 0;
  if (!IsQ4(w.type) || !is_aligned) return cudaErrorInvalidValue;
  if (rows == 0) return cudaSuccess;
  const Q4Args args = {.out = out,
                       .out_stride = out_stride,
                       .x = x,
                       .rows = rows,
                       .row_tiles = 0,
                       .tiles = static_cast<const uint8_t*>(w.data),
                       .layout = Q4Layout(w.type, w.cols),
                       .type = w.type,
                       .outputs = w.rows};
  if (rows == 1) return Run<1>(args, stream);
  return rows <= 4 ? Run<4>(args, stream) : Run<8>(args, stream);
}

}  // namespace asymserve::cuda
