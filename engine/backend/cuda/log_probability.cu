#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/log_probability.h"
#include "engine/backend/cuda/probability_mass.cuh"

namespace asymserve::cuda {
namespace {

/// A block for a draw.
__global__ void __launch_bounds__(kMassThreads)
    LogProbabilityKernel(DrawRows rows, MassScratch scratch) {
  AwaitEarlierKernels();
  const TokenDraw draw = rows.draws[blockIdx.x];
  const int32_t token = rows.drawn[blockIdx.x].token;
  if (!draw.logprob || token < 0) return;  // the whole block
  const float* logits = rows.logits + int64_t{draw.row} * rows.vocabulary;
  const float largest = rows.best[blockIdx.x].value;
  const auto thread = static_cast<int32_t>(threadIdx.x);
  Mass sum = 0;
  for (int32_t i = thread; i < rows.vocabulary; i += kMassThreads) {
    sum += MassOf(ExpNonPositive(logits[i] - largest));
  }
  sum = BlockMass(sum, scratch);
  if (thread != 0) return;
  const double weights = static_cast<double>(sum) / static_cast<double>(kMassOfOne);
  rows.drawn[blockIdx.x] = {token, logits[token], largest, weights};
}

}  // namespace

cudaError_t LogProbability(const DrawRows& rows, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  SharedPlan plan;
  MassScratch scratch;
  scratch.sums = plan.Take<Mass>(kWarpLanes);
  scratch.place = plan.Take<MassPlace>(1);
  return Launch<LogProbabilityKernel>(dim3(static_cast<unsigned>(rows.count)), dim3(kMassThreads),
                                      plan.bytes(), stream, rows, scratch);
}

}  // namespace asymserve::cuda
