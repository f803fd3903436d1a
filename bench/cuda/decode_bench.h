#pragma once

#include "bench/cuda/device_bench.h"

namespace asymserve::bench {

/// Whole steps of a model of Llama-3-8B's shape with random Q4_0 weights, in several schemes:
/// decoding, and 512 tokens of a prompt. Times are of the host's clock, from the call of the model
/// to the drawn tokens.
void MeasureModel(Meter& meter);

}  // namespace asymserve::bench
