#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/kv/prefix_index.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// What the bytes of a page depend on besides the tokens, and who may share it.
struct PrefixScope {
  std::string_view cache;   // model, profile and scheme: those of one engine
  std::string_view tenant;  // tenants do not share, so that none can time another's prompts
  KvPrecision precision = KvPrecision::kScheme;
  int32_t chunk_tokens = 0;
};

/// A hash for each whole chunk of a prompt: SHA-256 over the scope's digest, or the hash of the
/// chunk before, and the chunk's token ids (int32, little-endian).
std::vector<PrefixHash> HashPrefix(const PrefixScope& scope, std::span<const int32_t> prompt);

}  // namespace asymserve
