#pragma once

#include <memory>

#include "engine/model/weight_file.h"

namespace asymserve::bench {

/// Weights of Llama-3-8B's shape, Q4_0: random codes and scales, the same bytes in every matrix;
/// norms are ones. Activations stay in the range that those of a model have.
std::unique_ptr<WeightFile> RandomLlama3_8B();

}  // namespace asymserve::bench
