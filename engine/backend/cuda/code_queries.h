#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/paged_attention.h"

namespace asymserve::cuda {

/// For every split and query head whose keys are learned codes, into its softmax state of
/// args.states before the scan that will overwrite it: q . R x' = coded . z' + bias, q scaled by
/// 1/sqrt(D) and rotated back to the start of the split's frame. bias comes first in the state,
/// coded [D] after its first kStateValues numbers. A kernel of its own, so that a decoding matrix
/// is read once for kCodedRows heads. Head sizes of 64 and 128; frames as for PagedAttention.
cudaError_t CodeQueries(const AttentionArgs& args, cudaStream_t stream);

inline constexpr int32_t kCodedRows = 16;

}  // namespace asymserve::cuda
