#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/kv/profile.h"
#include "engine/runtime/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

/// What the services serve. Everything referred to outlives the gRPC server.
struct ServedModel {
  Engine* engine = nullptr;
  const Tokenizer* tokenizer = nullptr;
  const ChatTemplate* chat_template = nullptr;  // null: see chat_template_error
  absl::Status chat_template_error;
  RequestLimits limits;

  // For GetModelInfo and metrics.
  std::string name;
  std::string architecture;
  int32_t layers = 0;
  std::string weight_type;  // "Q4_1"
  int64_t weight_bytes = 0;
  int64_t kv_cache_tokens = 0;  // as one sequence could fill it
  std::string kv_scheme;
  std::vector<KvLoss> kv_losses;  // of a learned scheme, as its profile says
  double kv_sealed_bits = 0;      // per element
  double kv_effective_bits = 0;   // per element, of a sequence of the whole context
  int32_t max_running = 0;
  int32_t page_tokens = 0;
};

}  // namespace asymserve
