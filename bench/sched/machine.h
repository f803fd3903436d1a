#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/kv/profile.h"
#include "engine/kv/scheme.h"

// Machines as the simulation knows them. A step takes
//
//   fixed + max(weights, prefill tokens * prefill_token + decode rows * decode_row)
//         + KV bytes read * read_factor / kv_bytes_per_us
//         + sum over decode rows of context * row_context
//         + sum over prefill tokens of context * prefill_context + sealed pages * seal
//
// microseconds, a scheme adding its own to fixed, decode_row and prefill_context. Where each figure
// comes from: bench/sched/README.md.

namespace asymserve {

/// What a KV scheme costs beyond its bytes.
struct SchemeSpeed {
  std::string_view scheme;    // ends in '*': every name that begins so
  double read_factor = 1;     // time to read a byte of KV, relative to one of exact
  double row_context_us = 0;  // per decode row and token that it attends to, in all layers
  double seal_us = 0;         // per page, in all layers, keys and values
  // More than exact takes:
  double fixed_us = 0;            // of a step
  double decode_row_us = 0;       // of a decode row
  double prefill_context_us = 0;  // of a prefill token, per token that it attends to
};

struct Machine {
  std::string_view name;
  KvShape shape;
  int64_t kv_bytes = 0;  // of the arena
  int32_t context_tokens = 0;
  int32_t max_running = 0;
  int32_t max_waiting = 0;
  int32_t step_tokens = 0;
  double fixed_us = 0;
  double weights_us = 0;  // reading the weights once: the least that a step's products take
  double prefill_token_us = 0;
  double decode_row_us = 0;
  double prefill_context_us = 0;
  double kv_bytes_per_us = 1;
  bool uniform_tiers = false;  // light, balanced, dense: the same planes for all items, no profile
  std::vector<SchemeSpeed> speeds;

  /// InvalidArgument lists the schemes that have figures on this machine.
  absl::StatusOr<SchemeSpeed> Speed(std::string_view scheme) const;
};

/// NotFound lists the names.
absl::StatusOr<Machine> NamedMachine(std::string_view name);

/// The scheme of that name on that machine. `profile` may be null; it has the tiers where they are
/// not uniform.
absl::StatusOr<KvScheme> MachineScheme(const Machine& machine, std::string_view name,
                                       const KvProfile* profile);

}  // namespace asymserve
