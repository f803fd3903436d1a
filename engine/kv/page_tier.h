#pragma once

#include <cstdint>

#include "engine/kv/ids.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// The form in which attention reads a tensor of a page.
enum class KvTier : uint8_t {
  kNear,   // as written
  kFresh,  // sealed: base and refinement
  kAged,   // sealed: base
};

/// One page of a sequence: its records, and how it is read.
struct KvPage {
  PageId near = kNoPage;
  PageId base = kNoPage;
  PageId refinement = kNoPage;
  PageId exact_values = kNoPage;  // a near-sized record, of exact pages that take two (kv/layout.h)
  KvTier key_tier = KvTier::kNear;
  KvTier value_tier = KvTier::kNear;
  bool exact = false;  // of a kExact sequence: 16 bit, and near for ever

  friend bool operator==(const KvPage&, const KvPage&) = default;
};

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
