#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/grid.h"
#include "engine/backend/cuda/kv_view.h"
#include "engine/kv/seal_op.h"

namespace asymserve::cuda {

/// Seals `count` pages in all layers and heads: reads near records, writes base and, where an op
/// has one, refinement. The bytes are those of EncodeBlock (kv/codec.h), given the same near bytes.
/// `max_planes`: the most fresh planes of an item of the scheme. `ops` is device memory.
/// cudaErrorInvalidValue for a view without items, or when a block's planes need more shared memory
/// than there is. `pages_at_once`: of a launch.
cudaError_t Seal(const KvView& kv, const KvSealOp* ops, int64_t count, int32_t max_planes,
                 cudaStream_t stream, int64_t pages_at_once = kMostBlocksInY);

}  // namespace asymserve::cuda
