#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/page_tile.cuh"
#include "engine/backend/cuda/paged_attention.h"

// What the attention kernels share: a block's part of the work, and the softmax states that they
// leave for MergeStates (merge_states.h).

namespace asymserve::cuda {

inline constexpr int32_t kSplitTokens = kSplitPages * kKvPageTokens;

// A softmax state: the largest score, the sum of exp(score - largest), the same over positions
// whose values are summed in a space of their own, a float of padding, the weighted sum of values
// [D], and that in the space of its own [D].
inline constexpr int32_t kStateValues = 4;

/// Floats of a state.
__device__ __forceinline__ int64_t StateFloats(const KvView& kv) {
  return kStateValues + int64_t{2} * kv.head_size;
}

__device__ __forceinline__ int32_t Thread() {
  return static_cast<int32_t>(threadIdx.x);
}

/// Whether a row is of args.row_set.
__device__ __forceinline__ bool IsAsked(const AttentionArgs& args, const AttentionRow& row) {
  if (args.row_set == RowSet::kAll) return true;
  return args.pages[row.first_page].exact == (args.row_set == RowSet::kExact);
}

/// Whether values of a codec are summed in a space of their own and turned back at the end.
__device__ __forceinline__ bool HasOwnSpace(KvCodec codec) {
  return codec == KvCodec::kPlanes || codec == KvCodec::kFitted;
}

/// A split of a row and some query heads of one KV head.
struct Split {
  const AttentionArgs& args;
  AttentionRow row = {};
  int32_t work = 0;
  int32_t first_token = 0;  // of the split
  int32_t tokens = 0;       // that the row sees of it
  int32_t kv_head = 0;
  int32_t first_head = 0, heads = 0;  // query heads

  __device__ int32_t pages() const { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }
  __device__ KvPage Page(int32_t page) const {
    return args.pages[row.first_page + first_token / kKvPageTokens + page];
  }
  __device__ int32_t PageTokens(int32_t page) const {
    const int32_t left = tokens - page * kKvPageTokens;
    return left < kKvPageTokens ? left : kKvPageTokens;
  }
  __device__ PageBlock Block(int32_t page, KvTensor tensor) const {
    return BlockOf(args.kv, Page(page), args.layer, tensor, kv_head);
  }
  __device__ const PlaneCodeView* Code(KvTensor tensor) const {
    if (args.kv.codes == nullptr) return nullptr;
    return args.kv.codes + args.kv.ItemIndex(args.layer, tensor, kv_head);
  }
};

/// The split and query heads of the block that runs: block (x, y) has split x of the work and part
/// y of the query heads, kHeads at most.
template <int32_t kHeads>
__device__ Split MakeSplit(const AttentionArgs& args) {
  const AttentionWork work = args.work[blockIdx.x];
  const AttentionRow row = args.rows[work.row];
  const int32_t group = args.heads / args.kv.kv_heads;
  const int32_t parts = (group + kHeads - 1) / kHeads;
  const auto y = static_cast<int32_t>(blockIdx.y);
  const int32_t first = y % parts * kHeads;
  const int32_t first_token = work.split * kSplitTokens;
  const int32_t left = row.position + 1 - first_token;
  return {args,
          row,
          static_cast<int32_t>(blockIdx.x),
          first_token,
          left < kSplitTokens ? left : kSplitTokens,
          y / parts,
          y / parts * group + first,
          group - first < kHeads ? group - first : kHeads};
}

}  // namespace asymserve::cuda
