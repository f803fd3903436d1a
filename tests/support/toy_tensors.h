#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/toy_model.h"

namespace asymserve::testing {

/// One tensor of a toy model in the row order of Hugging Face.
struct ToyTensor {
  std::string gguf_name;
  std::string hf_name;
  bool is_vector = false;
  int64_t rows = 1;
  int64_t cols = 0;
  DType dtype = DType::kF32;
  float mean = 0;
  float sigma = 0;
  int32_t rotary_heads = 0;  // rows belong to this many heads whose channels rotate; 0: no rotation
};

std::vector<ToyTensor> ToyTensors(const ToyModel& model);

/// The bytes of a tensor; `interleave` puts the two halves of each head's channels alternately, as
/// GGUF's Llama family has them.
std::string ToyTensorBytes(const ToyModel& model, const ToyTensor& tensor, bool interleave);

}  // namespace asymserve::testing
