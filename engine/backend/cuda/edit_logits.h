#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/draw_rows.h"

namespace asymserve::cuda {

/// Makes the edits of each draw in its row of logits: bias, then repetition penalty, then frequency
/// and presence penalties, then bans, by the operations of model/sampler.cc, so with its bits.
/// Keeps in rows.unedited what was there.
cudaError_t EditLogits(const DrawRows& rows, cudaStream_t stream);

/// Takes them back.
cudaError_t RestoreLogits(const DrawRows& rows, cudaStream_t stream);

}  // namespace asymserve::cuda
