#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/paged_attention.h"

namespace asymserve::cuda {

/// args.out from the softmax states of all splits in args.states, those of a row merged in order;
/// values of learned and of rotated codes are turned back here, once a row and query head.
cudaError_t MergeStates(const AttentionArgs& args, cudaStream_t stream);

}  // namespace asymserve::cuda
