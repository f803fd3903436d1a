#include "engine/runtime/capacity_plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/runtime/memory_budget.h"
#include "engine/runtime/memory_count.h"

namespace asymserve {
namespace {

KvScheme AssumedTier(const KvShape& shape, const char* name, double base_bits, double fresh_bits) {
  // A plane is 4 bits of 4 channels; planes come in pairs.
  const auto planes = [&](double bits) {
    const double pairs = std::round(bits * shape.head_size / 8);
    return static_cast<uint8_t>(2 * std::max(1.0, pairs));
  };
  KvScheme scheme;
  scheme.name = name;
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = 1;
  scheme.fresh_pages = 4;
  scheme.key_window = scheme.value_window = {.recent_pages = 1, .block_pages = 1};
  const auto items =
      size_t{2} * static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.kv_heads);
  scheme.items.assign(items, {.codec = KvCodec::kPlanes,
                              .base_planes = planes(base_bits),
                              .fresh_planes = planes(fresh_bits)});
  return scheme;
}

struct NamedScheme {
  KvScheme scheme;
  bool assumed = false;
  const KvProfileTier* tier = nullptr;
};

absl::StatusOr<NamedScheme> Resolve(const std::string& name, const KvShape& shape,
                                    const KvProfile* profile) {
  NamedScheme named;
  if (profile == nullptr) {
    for (KvScheme& tier : AssumedTiers(shape)) {
      if (tier.name != name) continue;
      named.scheme = std::move(tier);
      named.assumed = true;
      return named;
    }
  }
  ASYMSERVE_ASSIGN_OR_RETURN(named.scheme, ResolveKvScheme(name, shape, profile));
  ASYMSERVE_RETURN_IF_ERROR(CheckKvScheme(named.scheme, shape));
  for (size_t i = 0; profile != nullptr && i < profile->tiers.size(); ++i) {
    if (profile->tiers[i].name == name) named.tier = &profile->tiers[i];
  }
  return named;
}

std::vector<std::string> DefaultSchemes(const KvShape& shape, const KvProfile* profile) {
  std::vector<std::string> names = {"exact", "kivi-2",
                                    absl::StrCat("asymkv-", shape.layers / 2, "/0")};
  if (profile != nullptr) {
    for (const KvProfileTier& tier : profile->tiers) names.push_back(tier.name);
  } else {
    for (const KvScheme& tier : AssumedTiers(shape)) names.push_back(tier.name);
  }
  return names;
}

void JudgeQuality(const NamedScheme& named, const KvProfile* profile, const KvQualityLimits& limits,
                  CapacityRow& row) {
  if (named.scheme.name == KvScheme().name) {
    row.quality = CapacityRow::Quality::kAllowed;
  } else if (named.tier != nullptr) {
    row.losses = WorstLoss(named.tier->losses);
    row.quality = CheckTierQuality(*profile, named.tier->name, limits).ok()
                      ? CapacityRow::Quality::kAllowed
                      : CapacityRow::Quality::kRefused;
  }
}

/// Makes the rows, one scheme after the other, of what does not depend on the scheme.
class CapacityPlanner {
 public:
  CapacityPlanner(const CapacityOptions& options, const WeightFile& file, const Backend& backend)
      : options_(options), file_(file), backend_(backend) {}

  absl::Status Count();
  absl::StatusOr<CapacityRow> Row(const NamedScheme& named) const;

 private:
  const CapacityOptions& options_;
  const WeightFile& file_;
  const Backend& backend_;
  MemoryRequest request_;
  int64_t upload_bytes_ = 0;  // tables without codes
};

absl::Status CapacityPlanner::Count() {
  const ModelConfig& config = file_.config();
  request_.shape = KvShapeOf(config);
  ASYMSERVE_ASSIGN_OR_RETURN(const std::optional<DeviceRoom> room, backend_.Room());
  SetBudget({options_.memory_bytes, options_.memory_option, room},
            {.vocabulary = config.vocabulary,
             .context_tokens =
                 options_.context_tokens > 0 ? options_.context_tokens : config.context_length,
             .waiting = options_.max_waiting,
             .threads = options_.threads},
            request_);
  request_.context_option = options_.context_option;
  request_.margin_bytes = options_.margin_bytes;
  request_.kv_bytes = options_.kv_bytes;
  request_.kv_option = options_.kv_option;
  request_.load = options_.load;
  request_.context_tokens = options_.context_tokens;
  if (request_.context_tokens == 0) request_.context_tokens = config.context_length;
  if (request_.context_tokens < 1 || request_.context_tokens > config.context_length) {
    return absl::InvalidArgumentError(
        absl::StrCat(options_.context_option, ": ", request_.context_tokens,
                     " tokens; the model was trained for 1 to ", config.context_length));
  }
  LlamaOptions llama;
  llama.max_positions = static_cast<int32_t>(request_.context_tokens);
  ASYMSERVE_ASSIGN_OR_RETURN(const MemoryBytes fixed,
                             CountModelMemory(file_, backend_, llama, KvScheme()));
  upload_bytes_ = fixed[MemoryClass::kTables];
  request_.weight_bytes =
      options_.weight_bytes > 0 ? options_.weight_bytes : fixed[MemoryClass::kWeights];
  ASYMSERVE_ASSIGN_OR_RETURN(request_.workspace, CountWorkspace(file_, backend_));
  return absl::OkStatus();
}

absl::StatusOr<CapacityRow> CapacityPlanner::Row(const NamedScheme& named) const {
  CapacityRow row;
  row.scheme = named.scheme.name;
  row.assumed = named.assumed;
  MemoryRequest request = request_;
  request.scheme = named.scheme;
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t codes,
                             CountCodes(request.shape, request.scheme, backend_));
  request.table_bytes = upload_bytes_ + codes;
  if (options_.sequences > 0) {
    MemoryRequest any = request;
    any.kv_bytes = 0;
    const absl::StatusOr<int64_t> bytes = MemoryForSequences(any, options_.sequences);
    if (bytes.ok()) row.memory_for_sequences = *bytes;  // else no memory is enough
  }
  absl::StatusOr<MemoryPlan> plan = PlanMemory(request);
  if (!plan.ok()) {
    row.status = plan.status();
    return row;
  }
  row.plan = *std::move(plan);
  if (options_.long_load.has_value()) {
    request.load = *options_.long_load;
    ASYMSERVE_ASSIGN_OR_RETURN(const MemoryPlan longer, PlanMemory(request));
    row.long_sequences = longer.running;
  }
  return row;
}

}  // namespace

std::vector<KvScheme> AssumedTiers(const KvShape& shape) {
  return {AssumedTier(shape, "balanced", 1.0, 3.0), AssumedTier(shape, "dense", 0.75, 3.0)};
}

absl::StatusOr<std::vector<CapacityRow>> PlanCapacity(const WeightFile& file,
                                                      const Backend& backend,
                                                      const KvProfile* profile,
                                                      const CapacityOptions& options) {
  CapacityPlanner planner(options, file, backend);
  ASYMSERVE_RETURN_IF_ERROR(planner.Count());
  const KvShape shape = KvShapeOf(file.config());
  ASYMSERVE_ASSIGN_OR_RETURN(const CapacityRow exact, planner.Row({.scheme = KvScheme()}));
  std::vector<CapacityRow> rows;
  for (const std::string& name :
       options.schemes.empty() ? DefaultSchemes(shape, profile) : options.schemes) {
    const absl::StatusOr<NamedScheme> named = Resolve(name, shape, profile);
    if (!named.ok()) return Annotate(named.status(), "schemes");
    ASYMSERVE_ASSIGN_OR_RETURN(CapacityRow row, planner.Row(*named));
    JudgeQuality(*named, profile, options.limits, row);
    if (exact.plan.running > 0) {
      row.ratio_to_exact =
          static_cast<double>(row.plan.running) / static_cast<double>(exact.plan.running);
    }
    rows.push_back(std::move(row));
  }
  const auto fits = [](const CapacityRow& row) { return row.status.ok(); };
  const bool asked = options.sequences > 0;  // then rows that do not fit have something to say, too
  if (!asked && std::none_of(rows.begin(), rows.end(), fits)) return rows.back().status;
  return rows;
}

}  // namespace asymserve
