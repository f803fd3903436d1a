#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "engine/kv/prefix_index.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// What the bytes of a page depend on besides the tokens, and who may share it.
struct PrefixScope {
  std::string_view cache;   // model, profile and scheme: those of one engine
  std::string_view tenant;  // tenants do not share, so that none can time another's prompts
  KvPrecision precision = KvPrecision::kScheme;
  int32_t chunk_tokens = 0;
  int32_t tail_page_tokens = 0;  // also name the whole pages of the last chunk; 0: no
};

/// The parts of a prompt: SHA-256 over the scope's digest, or the hash of the chunk before, and the
/// part's token ids (int32, little-endian).
PrefixChain HashPrefix(const PrefixScope& scope, std::span<const int32_t> prompt);

}  // namespace asymserve
