#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/kv/memory_planner.h"
#include "engine/kv/profile.h"
#include "engine/kv/quality_gate.h"
#include "engine/model/llama.h"
#include "engine/runtime/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

struct LoadOptions {
  std::string path;                // GGUF file or Hugging Face folder
  std::string kv_scheme = "auto";  // ResolveKvScheme; auto: balanced with a profile, else exact
  std::string kv_profile;          // empty: PATH.asymkv if that exists
  KvQualityLimits kv_limits;       // what a tier may lose, kv/quality_gate.h
  bool kv_self_check = false;      // measure the scheme, quality/self_check.h
  bool kv_prefix_cache = true;     // share the pages of prompts that begin alike
  /// All that the process may take; 0: what it has resident now and what the system has available.
  /// On a device with memory of its own: all of that; 0: what is free.
  int64_t memory_bytes = 0;
  int64_t memory_margin_bytes = int64_t{128} << 20;  // of it, left alone
  int64_t kv_memory_bytes = 0;                       // of the arena; 0: what the rest leaves
  int32_t max_context_tokens = 0;                    // 0: the model's
  int32_t max_running = 64;
  int32_t max_waiting = 256;
  int32_t step_tokens = 512;
  int32_t threads = 1;  // of the backend, for the bound of the rest of the process
};

/// Everything that serving needs of a model file, bound to a backend that outlives it.
struct LoadedModel {
  ModelConfig config;
  std::string weight_type;  // "Q4_1"
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat_template;  // null: see chat_template_error
  absl::Status chat_template_error;             // why Chat is refused for this model
  std::unique_ptr<LlamaModel> model;
  EngineOptions engine_options;  // sized for the KV memory
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
  MemoryPlan memory_plan;
  std::string kv_profile;                                     // that was read; empty: none
  std::string kv_tier;                                        // of it; empty: a named scheme
  std::vector<KvLoss> kv_losses;                              // of the tier that is served
  std::optional<double> kv_self_check_kl;                     // mean KL, if it was measured
  std::vector<std::pair<std::string, double>> phase_seconds;  // start-up phases, in order
};

/// Opens, checks and packs the model, and allocates its KV pages. The tokenizer is built beside the
/// packing. Errors name the file and the tensor, key or option; FailedPrecondition with the table
/// of tiers when the quality gate refuses the scheme.
absl::StatusOr<LoadedModel> LoadModel(Backend& backend, const LoadOptions& options);

}  // namespace asymserve
