#pragma once

#include <cstdint>
#include <string>

#include "engine/base/tensor.h"
#include "engine/model/model_config.h"

namespace asymserve::testing {

/// A small Llama-family model with random weights. Letters as in backend.h.
struct ToyModel {
  std::string architecture = "llama";  // llama, qwen2 (bias), qwen3 (q/k norm)
  int32_t layers = 2;
  int32_t width = 64;               // C
  int32_t feed_forward_width = 96;  // F
  int32_t heads = 4;                // H
  int32_t kv_heads = 2;             // G
  int32_t head_size = 16;           // D
  int32_t vocabulary = 288;         // V, at least kToyLeastVocabulary
  int32_t context_length = 512;
  float norm_epsilon = 1e-5f;
  float rope_base = 10000;
  // GGUF files say kLlama3 through rope_freqs.weight, with the same divisors.
  RopeScaling rope_scaling = {};
  bool tied_output = true;
  DType dtype = DType::kF32;            // of matrices; F16 where a row does not fit its block
  DType embedding_dtype = DType::kF32;  // of the embedding table and the output, likewise
  // Of norms and biases in folders; GGUF files have the same values as F32.
  DType vector_dtype = DType::kF32;
  uint64_t seed = 1;
};

/// Writes a GGUF file. Aborts when it cannot be written.
void WriteToyGguf(const ToyModel& model, const std::string& path);

/// Writes a Hugging Face folder (which exists) in `shards` files: the same model as the GGUF file,
/// bit for bit, when its types are F32, F16 or BF16 (others abort). Only the order of the rows of q
/// and k differs for llama, as the two formats demand.
void WriteToyFolder(const ToyModel& model, const std::string& path, int shards = 1);

}  // namespace asymserve::testing
