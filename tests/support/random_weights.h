#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/base/tensor.h"

namespace asymserve::testing {

/// Bytes of one row of random weights with mean `mean` and standard deviation about `sigma`, a
/// function of the arguments only. Quantized types get random blocks in which every field varies;
/// their mean is about zero. `elements` is a multiple of the type's block.
std::string RandomRow(DType dtype, int64_t elements, float mean, float sigma, uint64_t seed,
                      std::string_view tensor, int64_t row);

}  // namespace asymserve::testing
