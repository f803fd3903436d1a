#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/draw_rows.h"

namespace asymserve::cuda {

enum class ArgMaxOf : uint8_t {
  kAll,     // rows.best, of all draws
  kEdited,  // rows.edited, of those with edits, once they are made
};

/// The largest logit of each row. Comparisons have no rounding, so the order in which a block makes
/// them does not matter.
cudaError_t ArgMax(const DrawRows& rows, ArgMaxOf of, cudaStream_t stream);

}  // namespace asymserve::cuda
