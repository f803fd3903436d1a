#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/base/tensor.h"

namespace asymserve {

/// One row of `elements` weights (a multiple of the type's block) at `row`, unaligned, as a model
/// file holds it: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K. Every product is rounded to
/// fp32 by itself, in the order of the block's definition in dequantize.cc, so that the bits are
/// those of the gguf package. For statistics and tests; backends read the packed weights.
std::vector<float> DequantizeRow(DType dtype, const std::byte* row, int64_t elements);

/// The 6-bit scale and minimum of 32 weights in Q4_K and Q5_K.
struct PackedScale {
  uint8_t scale;
  uint8_t min;
};
/// Of sub-block `sub`, 0 to 7, out of the 12 bytes behind a block's fp16 numbers.
PackedScale UnpackScale(const std::byte* packed, int sub);

}  // namespace asymserve
