#pragma once

#include <cstdint>

#include "engine/kv/ids.h"

// Host and device.

namespace asymserve {

/// A page has up to three records, each with a block of every (layer, KV head, tensor) in that
/// order, blocks as in kv/block_format.h. The keys and values of a head are neighbours, for
/// attention reads them one after the other: what the processor fetched too much of one it finds
/// for the other.
///   near        every item in the scheme's near format
///   base        every item sealed; kPlanes: its base planes
///   refinement  kPlanes: the planes from base to fresh; other items have none
///
/// A page of a kExact sequence is 16 bit whatever the scheme, and never sealed. Where near is kHalf
/// it is one near record. Where near is kInt8 it takes two near-sized records, one for its keys and
/// one for its values: each a kHalf block, 2 * 64 * D bytes, of every (layer, KV head) in that
/// order from the record's start on. They fit, for a near record holds two blocks of 64 D + 128
/// bytes for each of these; what is left of the record is not used.
enum class KvRecord : uint8_t { kNear, kBase, kRefinement };

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
  PageId exact_values = kNoPage;  // a near-sized record, of exact pages that take two (KvRecord)
  KvTier key_tier = KvTier::kNear;
  KvTier value_tier = KvTier::kNear;
  bool exact = false;  // of a kExact sequence: 16 bit, and near for ever

  friend bool operator==(const KvPage&, const KvPage&) = default;
};

}  // namespace asymserve
