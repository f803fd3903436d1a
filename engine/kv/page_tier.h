#pragma once

#include <cstdint>

#include "engine/kv/page.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// The tier of page `page` when the sequence's first `complete` pages are complete: position / 64
/// of a decoded token, start of the chunk / 64 of a prefilled one (kv-cache contract, section 4 of
/// engine/README.md). Pages from `complete` on are near. Of a sequence that is not kExact.
inline KvTier TierOf(const KvScheme& scheme, KvTensor tensor, int32_t page, int32_t complete,
                     KvPrecision precision = KvPrecision::kScheme) {
  const KvWindow& window = tensor == KvTensor::kKey ? scheme.key_window : scheme.value_window;
  const int32_t sealed = complete / window.block_pages * window.block_pages - window.recent_pages;
  if (!scheme.seals() || page < scheme.sink_pages || page >= sealed) return KvTier::kNear;
  const int32_t fresh = precision == KvPrecision::kUnrefined ? 0 : scheme.fresh_pages;
  return page >= sealed - fresh ? KvTier::kFresh : KvTier::kAged;
}

}  // namespace asymserve
