#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/draw_rows.h"

namespace asymserve::cuda {

/// For draws that want it: what the log-probability of the drawn token is made of, by the model's
/// own logits (after RestoreLogits). The sum is one of integers (probability_mass.cuh), within
/// V 2^-46 of that of weights, so a log-probability is within 4e-9 of the host's and the rounding
/// to a float.
cudaError_t LogProbability(const DrawRows& rows, cudaStream_t stream);

}  // namespace asymserve::cuda
