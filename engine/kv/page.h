#pragma once

#include <cstdint>

#include "engine/kv/ids.h"

// Host and device.

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

}  // namespace asymserve
