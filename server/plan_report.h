#pragma once

#include <span>
#include <string>

#include "engine/runtime/capacity_plan.h"
#include "server/length_trace.h"

namespace asymserve {

/// What a report says beside its rows.
struct PlanHead {
  std::string model;
  bool shapes_only = false;  // no weights were at hand
  CapacityOptions options;   // context_tokens as planned
  std::optional<TraceLengths> trace;
  int32_t max_running = 0;  // of the configuration
};

/// For people: what fits and what it costs a line a scheme, then the ledgers side by side.
std::string PlanText(const PlanHead& head, std::span<const CapacityRow> rows);

/// {"model", "memory_bytes", ..., "rows": [{"scheme", "bits_effective", "sequences",
/// "ratio_to_exact", "ledger": {"weights", ...}, ...}]}; null is what is not known.
std::string PlanJson(const PlanHead& head, std::span<const CapacityRow> rows);

}  // namespace asymserve
