#pragma once

#include <cstdint>

#include "engine/kv/page.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// The tier of page `page` when the sequence's first `complete` pages are complete: position / 64
/// of a decoded token, start of the chunk / 64 of a prefilled one (kv-cache contract, section 4 of
/// engine/README.md). Pages from `complete` on are near.
inline KvTier TierOf(const KvScheme& scheme, KvTensor tensor, int32_t page, int32_t complete) {
  const KvWindow& window = tensor == KvTensor::kKey ? scheme.key_window : scheme.value_window;
  const int32_t sealed = complete / window.block_pages * window.block_pages - window.recent_pages;
  if (!scheme.seals() || page < scheme.sink_pages || page >= sealed) return KvTier::kNear;
  return page >= sealed - scheme.fresh_pages ? KvTier::kFresh : KvTier::kAged;
}

}  // namespace asymserve
