#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "engine/backend/backend.h"

namespace asymserve {

/// Rotary position scaling.
struct RopeScaling {
  enum class Kind : uint8_t { kNone, kLinear, kLlama3 };
  Kind kind = Kind::kNone;
  float factor = 1;
  // kLlama3 (Llama 3.1 model card): wavelengths between the two limits are interpolated.
  float low_freq_factor = 1;
  float high_freq_factor = 4;
  int32_t original_context = 8192;
};

/// The Llama family as data: what differs between Llama 2/3, SmolLM2, Mistral, Qwen2, Qwen3.
struct ModelConfig {
  std::string architecture;  // as the file names it: "llama", "qwen2", "qwen3", "mistral"
  std::string name;
  int32_t layers = 0;
  int32_t width = 0;               // C
  int32_t feed_forward_width = 0;  // F
  int32_t vocabulary = 0;          // V
  AttentionShape attention;
  int32_t context_length = 0;  // positions the model was trained for
  float norm_epsilon = 1e-5f;
  float rope_base = 10000;
  RopeStyle rope_style = RopeStyle::kHalves;
  RopeScaling rope_scaling;
  // Per-pair divisors of the inverse frequencies (GGUF rope_freqs.weight), D/2 values or empty.
  std::vector<float> rope_factors;
  bool qkv_bias = false;     // Qwen2
  bool qk_norm = false;      // Qwen3: per-head RMSNorm of q and k
  bool tied_output = false;  // the output matrix is the embedding table
};

/// Whether the numbers fit together and into what the engine computes: sizes in range, H a multiple
/// of G, head sizes 8 to 256 in steps of 8, finite positive constants. InvalidArgument says which.
absl::Status ValidateModelConfig(const ModelConfig& config);

}  // namespace asymserve
