#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "engine/kv/capacity.h"
#include "engine/kv/memory_ledger.h"

// Turns a memory budget into an arena of page records and says what everything else takes. Pure:
// what weights, tables and workspace take is counted by a backend (Backend::MakeCounter).

namespace asymserve {

/// Activations and scratch, which grow with the tokens of a step and the rows of logits.
struct WorkspaceModel {
  int64_t fixed_bytes = 0;
  int64_t bytes_per_token = 0;
  int64_t bytes_per_sequence = 0;

  int64_t At(int64_t step_tokens, int64_t sequences) const {
    return fixed_bytes + bytes_per_token * step_tokens + bytes_per_sequence * sequences;
  }
};

struct MemoryRequest {
  KvShape shape;
  KvScheme scheme;  // valid for the shape

  int64_t weight_bytes = 0;
  int64_t table_bytes = 0;
  WorkspaceModel workspace;
  int64_t runtime_bytes = 0;  // a bound of the rest of the process; none of it is in a device's
  int64_t runtime_bytes_per_sequence = 0;
  int64_t margin_bytes = 0;  // of the budget, left alone
  /// How much more than its slabs the arena may take: a backend maps whole pages.
  int64_t arena_rounding_bytes = 0;

  /// The budget: all that the process may take.
  int64_t memory_bytes = 0;
  /// Of the arena; 0: what the rest leaves of the budget.
  int64_t kv_bytes = 0;
  /// KV memory wanted beyond what max_running sequences can ever use: cached prefixes.
  int64_t cached_bytes = 0;

  int64_t context_tokens = 0;  // one sequence of so many must fit
  KvLoad load;                 // what sequences are expected to look like
  int64_t max_running = 0;     // sequences at once; 0: as many as fit

  // Options that errors name.
  std::string memory_option = "engine.memory_bytes";
  std::string kv_option = "engine.kv_memory_bytes";
  std::string context_option = "engine.context_tokens";
};

struct MemoryPlan {
  ArenaCut arena;
  KvCapacity capacity;        // tokens alone, and sequences of the load, whatever max_running
  int64_t running = 0;        // sequences of the load at once: capacity and max_running allow it
  KvRecords records;          // that they hold
  double sealed_bits = 0;     // per element of sealed, aged pages
  double effective_bits = 0;  // per element of a sequence of the load
  MemoryLedger ledger;
  /// Not 0: the ledger is that of a device's memory, and this bounds what the process takes of the
  /// host's.
  int64_t host_bytes = 0;

  int64_t kv_bytes() const { return arena.slab_bytes * arena.slabs; }
  /// Puts what a backend maps for the arena, kv_bytes() and no more than the request's rounding
  /// above, into the ledger.
  void SetArenaMapped(int64_t bytes);
};

/// InvalidArgument names the option and the numbers: when a length, a size or a count is out of
/// range, when what is fixed is more than the budget, and when the arena could not hold one
/// sequence of the whole context.
absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request);

/// The budget that `sequences` >= 1 sequences of the load need, and one of the whole context.
absl::StatusOr<int64_t> MemoryForSequences(const MemoryRequest& request, int64_t sequences);

}  // namespace asymserve
