#pragma once

#include <cstdint>
#include <string>

#include "engine/runtime/engine.h"
#include "engine/runtime/memory_watch.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/kv_cache_info.h"

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
  std::string device;  // "cpu (avx512)"
  int32_t layers = 0;
  std::string weight_type;  // "Q4_1"
  int64_t weight_bytes = 0;
  KvCacheInfo kv;
  MemoryWatch* memory = nullptr;  // null: not watched
  int32_t max_running = 0;
  int32_t page_tokens = 0;
};

}  // namespace asymserve
