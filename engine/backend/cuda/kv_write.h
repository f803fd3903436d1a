#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/attention_plan.h"
#include "engine/backend/cuda/kv_view.h"

namespace asymserve::cuda {

/// Stores the keys and values of `tokens` tokens into the near records of their positions' pages:
/// k | v [2 kv_heads][D] of a token are the last elements of its row of qkv [tokens][row_elements].
/// The bytes are those of StoreNear (kv/codec.h). All pointers are to device memory.
cudaError_t KvWrite(const KvView& kv, int32_t layer, const float* qkv, int64_t row_elements,
                    const AttentionRow* rows, const KvPage* pages, int64_t tokens,
                    cudaStream_t stream);

}  // namespace asymserve::cuda
