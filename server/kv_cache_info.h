#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/kv/capacity.h"
#include "engine/kv/quality_gate.h"
#include "engine/runtime/model_loader.h"

namespace asymserve {

/// What the KV cache is, costs and holds: for the log, GetModelInfo and metrics. Losses in nats per
/// token, bits per element.
struct KvCacheInfo {
  std::string scheme;  // "exact", "fit-2/2", "balanced"
  std::string tier;    // of the profile; empty: a built-in scheme
  double sealed_bits = 0;
  std::array<double, 2> sealed_tensor_bits = {};            // by KvTensor
  double effective_bits = 0;                                // of a sequence of the whole context
  std::array<std::array<int64_t, 2>, 3> record_bytes = {};  // by KvRecord and KvTensor
  std::vector<KvLoss> losses;                               // as the profile says
  std::optional<double> mean_kl;    // the highest; 0 for exact; empty: not measured
  std::optional<double> copy_loss;  // the highest; empty: not measured
  std::optional<double> self_check_kl;
  KvQualityLimits limits;
  int32_t sequence_tokens = 0;  // of the sequences that capacities count
  KvCapacity capacity;
  KvCapacity exact_capacity;  // of an exact cache in the same memory

  bool unfit_for_long_range() const { return copy_loss.value_or(0) > kLongRangeCopyLoss; }
};

KvCacheInfo DescribeKvCache(const LoadedModel& loaded, const KvQualityLimits& limits);

/// A line kv_quality for each measured text, a warning when nothing of a lossy scheme was measured
/// or it is unfit for long-range reading, and a line kv_cache with the rest.
void LogKvCache(const KvCacheInfo& kv);

}  // namespace asymserve
