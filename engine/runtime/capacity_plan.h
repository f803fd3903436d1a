#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/kv/memory_planner.h"
#include "engine/kv/profile.h"
#include "engine/kv/quality_gate.h"
#include "engine/model/weight_file.h"

// How many sequences of a model fit a memory budget, scheme by scheme. Nothing is loaded.

namespace asymserve {

struct CapacityOptions {
  /// NamedKvScheme, tiers of the profile or, without one, AssumedTiers. Empty: exact, kivi-2,
  /// asymkv-<L/2>/0 and all tiers.
  std::vector<std::string> schemes;
  int64_t memory_bytes = 0;  // all that the process may take
  int64_t margin_bytes = 0;
  int64_t kv_bytes = 0;        // of the KV cache at most; 0: what is left
  int32_t context_tokens = 0;  // 0: the model's
  KvLoad load;
  std::optional<KvLoad> long_load;  // counted too
  int64_t sequences = 0;            // also say what so many need; 0: do not
  int64_t weight_bytes = 0;         // instead of what is counted; 0: counted
  int32_t max_waiting = 256;
  int32_t threads = 1;
  KvQualityLimits limits;
  // Options that errors name.
  std::string memory_option = "memory";
  std::string context_option = "context";
  std::string kv_option = "engine.kv_memory_bytes";
};

struct CapacityRow {
  enum class Quality : uint8_t { kUnmeasured, kAllowed, kRefused };

  std::string scheme;
  bool assumed = false;  // widths of a learned tier without a profile: uncalibrated
  absl::Status status;   // why there is no plan: the budget or the context
  MemoryPlan plan;
  std::optional<double> ratio_to_exact;         // of sequences; empty: exact does not fit
  std::optional<int64_t> long_sequences;        // of long_load
  std::optional<int64_t> memory_for_sequences;  // bytes
  std::optional<KvWorstLoss> losses;            // measured, the highest of all texts
  Quality quality = Quality::kUnmeasured;
};

/// What learned tiers look like before there is a profile: `balanced` (base 1.0 bits, fresh 3.0)
/// and `dense` (base 0.75), a sink page, a recent page, four fresh ones.
std::vector<KvScheme> AssumedTiers(const KvShape& shape);

/// A row per scheme, in order. `profile` may be null. InvalidArgument and NotFound name the option:
/// for an unknown scheme, sizes out of range, and a budget in which no scheme has a place.
absl::StatusOr<std::vector<CapacityRow>> PlanCapacity(const WeightFile& file,
                                                      const Backend& backend,
                                                      const KvProfile* profile,
                                                      const CapacityOptions& options);

}  // namespace asymserve
