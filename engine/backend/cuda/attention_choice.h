#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/paged_attention.h"
#include "engine/kv/scheme.h"

namespace asymserve::cuda {

/// Whether PackedAttentionMma reads pages of that scheme and shape: heads of 64 or 128 channels,
/// items that are kPlanes, kHalf or kInt8 (those of a profile's tiers; exact; int8), frames that
/// are multiples of a split. Other schemes are PagedAttention's.
bool CanUsePackedAttentionMma(const KvScheme& scheme, const KvShape& shape);

/// What computes the attention of an arena's sequences.
struct AttentionKernels {
  using Kernel = cudaError_t(const AttentionArgs&, cudaStream_t);

  Kernel* exact = &PagedAttention;
  Kernel* others = &PagedAttention;
};

/// Of exact sequences by shape alone: what they get does not depend on the scheme (invariant 8).
AttentionKernels ChooseAttention(const KvScheme& scheme, const KvShape& shape);

/// Attention of a plan of which `exact_rows` rows are of exact sequences.
cudaError_t RunAttention(const AttentionKernels& kernels, AttentionArgs args, int32_t exact_rows,
                         cudaStream_t stream);

}  // namespace asymserve::cuda
