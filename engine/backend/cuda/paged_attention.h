#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/kv_view.h"

namespace asymserve::cuda {

/// Rows by their sequences.
enum class RowSet : uint8_t { kAll, kExact, kOthers };

/// One layer's attention of the rows of a plan (engine/backend/attention_plan.h). All pointers are
/// to device memory.
struct AttentionArgs {
  KvView kv;
  int32_t layer = 0;
  int32_t heads = 0;  // H, a multiple of kv.kv_heads
  const float* qkv = nullptr;
  int64_t row_elements = 0;  // of qkv; its first H * D are the queries
  float* out = nullptr;      // [rows][H * D]
  const KvPage* pages = nullptr;
  const AttentionRow* rows = nullptr;
  int32_t row_count = 0;
  RowSet row_set = RowSet::kAll;  // which `rows`; `out` of the others stays as it is
  const AttentionWork* work = nullptr;
  int32_t work_count = 0;
  // The work once more, for kernels that share pages between rows; as in AttentionPlan.
  const SplitTile* tiles = nullptr;
  int32_t tile_count = 0;
  int32_t single_tiles = 0;
  int32_t most_rows = 0;
  float* states = nullptr;  // [AttentionStateFloats]
};

/// Floats of scratch that a plan of `work` splits needs: a softmax state for each row's split and
/// head. For decoding: 2,048 prefill rows at position 131,072, 256 splits each, of 32 heads of 128
/// channels would take 17 GB.
constexpr int64_t AttentionStateFloats(int64_t work, int32_t heads, int32_t head_size) {
  return work * heads * (4 + int64_t{2} * head_size);
}

/// out = causal softmax attention, scaled by 1/sqrt(D), of each row's queries over the stored
/// positions 0 .. its own, each page read in the tier that its KvPage says. The plain version:
/// codes become floats in shared memory, a page at a time, once for up to eight query heads of a KV
/// head; products are floats in order of the channels and of the tokens. A row's bits do not depend
/// on the other rows. cudaErrorInvalidValue for head sizes over kMaxKvHeadSize, and, with codes,
/// for frames that are not a multiple of a split's tokens.
cudaError_t PagedAttention(const AttentionArgs& args, cudaStream_t stream);

}  // namespace asymserve::cuda
