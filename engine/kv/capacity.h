#pragma once

#include <cstdint>

#include "engine/kv/record_pool.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// How much an arena holds.
struct KvCapacity {
  int64_t tokens = 0;     // of one sequence that has the arena alone
  int64_t sequences = 0;  // of the length asked for, all at once

  friend bool operator==(const KvCapacity&, const KvCapacity&) = default;
};

/// What an arena of `arena_bytes` holds with a valid scheme, when every sequence may hold as many
/// records as it ever needs at once on its way to `sequence_tokens` >= 1 tokens.
KvCapacity CapacityOf(const KvShape& shape, const KvScheme& scheme, int64_t arena_bytes,
                      int64_t sequence_tokens);

}  // namespace asymserve
