#include <cmath>

#include "engine/backend/cuda/arg_max.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarpLanes;

/// NaN is better than everything.
__device__ BestLogit Better(BestLogit a, BestLogit b) {
  if (a.token == kNanLogits || b.token == kNanLogits) return {a.value, kNanLogits};
  return b.value > a.value || (b.value == a.value && b.token < a.token) ? b : a;
}

__device__ BestLogit WarpBest(BestLogit mine) {
  for (int bits = kWarpLanes / 2; bits > 0; bits /= 2) {
    const float value = __shfl_xor_sync(kWholeWarp, mine.value, bits);
    const int32_t token = __shfl_xor_sync(kWholeWarp, mine.token, bits);
    mine = Better(mine, {value, token});
  }
  return mine;
}

/// A block for a draw.
__global__ void __launch_bounds__(kThreads)
    ArgMaxKernel(DrawRows rows, ArgMaxOf of, SharedSlice<BestLogit> scratch) {
  AwaitEarlierKernels();
  const TokenDraw draw = rows.draws[blockIdx.x];
  if (of == ArgMaxOf::kEdited && draw.edit_count == 0) return;
  const float* logits = rows.logits + int64_t{draw.row} * rows.vocabulary;
  const int thread = static_cast<int>(threadIdx.x);
  BestLogit mine = {-INFINITY, rows.vocabulary};  // loses against any
  for (int32_t i = thread; i < rows.vocabulary; i += kThreads) {
    const float logit = logits[i];
    mine = Better(mine, {logit, logit == logit ? i : kNanLogits});
  }
  const SharedArray<BestLogit> warps = Shared("scratch", scratch);
  mine = WarpBest(mine);
  if (thread % kWarpLanes == 0) warps[thread / kWarpLanes] = mine;
  __syncthreads();
  if (thread >= kWarpLanes) return;
  mine = WarpBest(warps[thread]);
  if (thread == 0) (of == ArgMaxOf::kAll ? rows.best : rows.edited)[blockIdx.x] = mine;
}

}  // namespace

cudaError_t ArgMax(const DrawRows& rows, ArgMaxOf of, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  static_assert(kWarps == kWarpLanes, "the first warp reads one result a lane");
  SharedPlan plan;
  const SharedSlice<BestLogit> scratch = plan.Take<BestLogit>(kWarps);
  return Launch<ArgMaxKernel>(dim3(static_cast<unsigned>(rows.count)), dim3(kThreads), plan.bytes(),
                              stream, rows, of, scratch);
}

}  // namespace asymserve::cuda
