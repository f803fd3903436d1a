#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/ptx.cuh"

// What both kernels of products by tensor cores (few_rows.cuh, many_rows.cuh) share: the order of
// a sum, and activations as B fragments of mma.m16n8k16. A lane is `group` = lane / 4 and
// `in_group` = lane % 4 in the words of the PTX ISA; its part of a B fragment is of row `group` of
// x, its part of the result of rows 2 in_group and 2 in_group + 1.

namespace asymserve::cuda {

inline constexpr int32_t kProductBlock = 32;    // columns that are multiplied at a time
inline constexpr int32_t kProductStrands = 16;  // of a sum
inline constexpr int32_t kTileOutputs = 32;     // whose weights a warp reads at a time
inline constexpr int32_t kTileInputs = 8;       // rows of x of a product of matrices

struct ProductArgs {
  float* out;
  int64_t out_stride;
  const float* x;
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

/// Eight activations of a row as bf16 + bf16: two B fragments of two registers each.
struct SplitInputs {
  FourWords high, low;
};

__device__ __forceinline__ void SplitPair(float a, float b, uint32_t& high, uint32_t& low) {
  high = PackBrains(a, b);
  low = PackBrains(a - std::bit_cast<float>(high << 16),
                   b - std::bit_cast<float>(high & 0xFFFF0000u));
}

/// kInterleaved: a register has every other one of four neighbours, as codes of 4 bits lie in a
/// word; otherwise two neighbours.
template <bool kInterleaved>
__device__ __forceinline__ SplitInputs Split(const FourFloats (&x)[2]) {
  SplitInputs split;
  ASYMSERVE_UNROLL
  for (int i = 0; i < 2; ++i) {
    constexpr int kOther = kInterleaved ? 2 : 1;
    constexpr int kNext = 3 - kOther;
    SplitPair(x[i].of[0], x[i].of[kOther], split.high.of[2 * i], split.low.of[2 * i]);
    SplitPair(x[i].of[kNext], x[i].of[3], split.high.of[2 * i + 1], split.low.of[2 * i + 1]);
  }
  return split;
}

/// Of 16 rows of weights and 32 columns.
struct WeightFragments {
  uint32_t of[2][4];
};

/// sums[m] += a[m] x, four products of matrices one after the other; those of one m wait for each
/// other, so the others lie between them.
template <int kCount>
__device__ __forceinline__ void MultiplyAdd(float (&sums)[kCount][4],
                                            const WeightFragments (&a)[kCount],
                                            const SplitInputs& x) {
  ASYMSERVE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint32_t high[2] = {x.high.of[2 * i], x.high.of[2 * i + 1]};
    const uint32_t low[2] = {x.low.of[2 * i], x.low.of[2 * i + 1]};
    ASYMSERVE_UNROLL
    for (int m = 0; m < kCount; ++m) MmaBf16(sums[m], a[m].of[i], high);
    ASYMSERVE_UNROLL
    for (int m = 0; m < kCount; ++m) MmaBf16(sums[m], a[m].of[i], low);
  }
}

/// The sums of a block's activations of the two rows that the lane has results of.
__device__ __forceinline__ TwoFloats SumInputs(const SplitInputs& x) {
  constexpr uint32_t kOnes = 0x3F803F80;
  constexpr WeightFragments kAllOnes[1] = {
      {{{kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes, kOnes, kOnes}}}};
  float sums[1][4] = {};
  MultiplyAdd(sums, kAllOnes, x);
  return {{sums[0][0], sums[0][1]}};
}

}  // namespace asymserve::cuda
