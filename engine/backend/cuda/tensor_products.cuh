#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/product_inputs.h"
#include "engine/backend/cuda/ptx.cuh"

// What both kernels of products by tensor cores (few_rows.cuh, many_rows.cuh) share: the order of
// a sum, and what of x a warp multiplies. A lane is `group` = lane / 4 and `in_group` = lane % 4 in
// the words of the PTX ISA; its part of a B fragment is of row `group` of a tile of x, its part of
// the result of rows 2 in_group and 2 in_group + 1.

namespace asymserve::cuda {

inline constexpr int32_t kProductStrands = 16;  // of a sum
inline constexpr int32_t kTileOutputs = 32;     // whose weights a warp reads at a time

struct ProductArgs {
  float* out;
  int64_t out_stride;
  ProductInputs x;
  int64_t rows;
  int32_t outputs;
  int32_t blocks;      // of columns
  uint32_t row_tiles;  // of a launch: its blocks are [tiles of outputs][row_tiles]
};

/// The first block of columns of a strand; that of strand + 1 is its end.
__device__ __forceinline__ int32_t StrandBegin(int32_t blocks, int32_t strand) {
  return static_cast<int32_t>(int64_t{blocks} * strand / kProductStrands);
}

struct alignas(8) TwoFloats {
  float of[2];
};

/// A block of columns of a tile of x in shared memory: fragments of the lanes and, where weights
/// have a minimum, the sums of eight rows.
template <typename Weights>
constexpr int32_t kInputQuads = 32 + (Weights::kHasMinimum ? 2 : 0);

/// Copies them to `quad`, block after block.
template <typename Weights>
class InputCursor {
 public:
  __device__ InputCursor() = default;
  __device__ InputCursor(const ProductArgs& args, int64_t tile, int32_t block, int32_t lane) {
    const int64_t unit = tile * args.blocks + block;
    fragments_ = args.x.fragments + unit * 32 + lane;
    sums_ = args.x.sums + unit * kTileInputs + 4 * lane;
  }
  __device__ __forceinline__ void Copy(SharedArray<FourWords> to, int32_t quad, int32_t lane) {
    CopyAsync16(to, quad + lane, fragments_);
    fragments_ += 32;
    if constexpr (Weights::kHasMinimum) {
      if (lane < kTileInputs / 4) CopyAsync16(to, quad + 32 + lane, sums_);
      sums_ += kTileInputs;
    }
  }

 private:
  const FourWords* fragments_ = nullptr;
  const float* sums_ = nullptr;
};

/// What a lane multiplies of a block: two fragments, and the sums of the rows of its results.
struct BlockInputs {
  FourWords fragments;
  TwoFloats sums;
};

template <typename Weights>
__device__ __forceinline__ BlockInputs LoadInputs(SharedSlice<FourWords> slice, int32_t quad,
                                                  int32_t lane) {
  BlockInputs x = {Shared("inputs", slice)[quad + lane], {}};
  if constexpr (Weights::kHasMinimum) {
    x.sums =
        Shared<TwoFloats>("inputs", {slice.offset, 2 * slice.count})[2 * (quad + 32) + lane % 4];
  }
  return x;
}

/// Of 16 rows of weights and 32 columns.
struct WeightFragments {
  uint32_t of[2][4];
};

/// sums[m] += a[m] x, two products of matrices one after the other; those of one m wait for each
/// other, so the others lie between them.
template <int kCount>
__device__ __forceinline__ void MultiplyAdd(float (&sums)[kCount][4],
                                            const WeightFragments (&a)[kCount],
                                            const FourWords& x) {
  ASYMSERVE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t b[2] = {x.of[2 * i], x.of[2 * i + 1]};
    ASYMSERVE_UNROLL
    for (int m = 0; m < kCount; ++m) MmaF16(sums[m], a[m].of[i], b);
  }
}

}  // namespace asymserve::cuda
