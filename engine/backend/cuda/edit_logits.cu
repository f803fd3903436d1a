#include <cmath>

#include "engine/backend/cuda/edit_logits.h"
#include "engine/backend/cuda/launch.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kThreads = 256;

__device__ float Edited(const TokenDraw& draw, const LogitEdit& edit, float logit) {
  switch (edit.kind) {
    case EditKind::kBias:
      return logit + edit.value;
    case EditKind::kSeen:
      return logit > 0 ? logit / draw.repetition_penalty : logit * draw.repetition_penalty;
    case EditKind::kCount:
      return logit - (draw.frequency_penalty * edit.value + draw.presence_penalty);
    case EditKind::kBan:
      break;
  }
  return -INFINITY;
}

/// A block for a draw. A token may have an edit of each kind, by different threads: hence the
/// barriers, which also order what the block does in global memory.
__global__ void __launch_bounds__(kThreads) EditLogitsKernel(DrawRows rows) {
  AwaitEarlierKernels();
  const TokenDraw draw = rows.draws[blockIdx.x];
  const int32_t first = draw.first_edit + static_cast<int32_t>(threadIdx.x);
  const int32_t end = draw.first_edit + draw.edit_count;
  float* logits = rows.logits + int64_t{draw.row} * rows.vocabulary;
  for (int32_t i = first; i < end; i += kThreads) rows.unedited[i] = logits[rows.edits[i].token];
  for (int32_t kind = 0; kind < kEditKinds; ++kind) {
    __syncthreads();
    for (int32_t i = first; i < end; i += kThreads) {
      const LogitEdit edit = rows.edits[i];
      if (edit.kind != static_cast<EditKind>(kind)) continue;
      logits[edit.token] = Edited(draw, edit, logits[edit.token]);
    }
  }
}

/// A block for a draw. Where a token has several edits, all write the same.
__global__ void __launch_bounds__(kThreads) RestoreLogitsKernel(DrawRows rows) {
  AwaitEarlierKernels();
  const TokenDraw draw = rows.draws[blockIdx.x];
  const int32_t end = draw.first_edit + draw.edit_count;
  float* logits = rows.logits + int64_t{draw.row} * rows.vocabulary;
  for (int32_t i = draw.first_edit + static_cast<int32_t>(threadIdx.x); i < end; i += kThreads) {
    logits[rows.edits[i].token] = rows.unedited[i];
  }
}

}  // namespace

cudaError_t EditLogits(const DrawRows& rows, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  return Launch<EditLogitsKernel>(dim3(static_cast<unsigned>(rows.count)), dim3(kThreads), 0,
                                  stream, rows);
}

cudaError_t RestoreLogits(const DrawRows& rows, cudaStream_t stream) {
  if (rows.count == 0) return cudaSuccess;
  return Launch<RestoreLogitsKernel>(dim3(static_cast<unsigned>(rows.count)), dim3(kThreads), 0,
                                     stream, rows);
}

}  // namespace asymserve::cuda
