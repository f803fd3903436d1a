#include "engine/backend/cuda/attention_choice.h"

#include <algorithm>

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/packed_attention_mma.h"
#include "engine/kv/block_format.h"

namespace asymserve::cuda {

bool CanUsePackedAttentionMma(const KvScheme& scheme, const KvShape& shape) {
  if (shape.head_size != 64 && shape.head_size != 128) return false;
  const int32_t frame = scheme.frame_tokens;
  const bool frame_fits = frame > 0 && frame % (kSplitPages * kKvPageTokens) == 0;
  return std::all_of(scheme.items.begin(), scheme.items.end(), [&](const KvItem& item) {
    return item.codec == KvCodec::kHalf || item.codec == KvCodec::kInt8 ||
           (item.codec == KvCodec::kPlanes && frame_fits);
  });
}

AttentionKernels ChooseAttention(const KvScheme& scheme, const KvShape& shape) {
  AttentionKernels kernels;
  if (CanUsePackedAttentionMma({}, shape)) kernels.exact = &PackedAttentionMma;
  if (CanUsePackedAttentionMma(scheme, shape)) kernels.others = &PackedAttentionMma;
  return kernels;
}

cudaError_t RunAttention(const AttentionKernels& kernels, AttentionArgs args, int32_t exact_rows,
                         cudaStream_t stream) {
  if (kernels.exact == kernels.others) return kernels.others(args, stream);
  if (exact_rows > 0) {
    args.row_set = RowSet::kExact;
    const cudaError_t error = kernels.exact(args, stream);
    if (error != cudaSuccess) return error;
  }
  if (exact_rows == args.row_count) return cudaSuccess;
  args.row_set = RowSet::kOthers;
  return kernels.others(args, stream);
}

}  // namespace asymserve::cuda
