#include "engine/kv/memory_planner.h"

#include <algorithm>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr int64_t kMostBytes = int64_t{64} << 40;
constexpr int64_t kMostTokens = int64_t{1} << 24;
constexpr int64_t kMostSequences = int64_t{1} << 24;

absl::Status OutOfRange(const std::string& name, int64_t value, int64_t least, int64_t most) {
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": ", value, "; must be ", least, " to ", most));
}

absl::Status CheckRequest(const MemoryRequest& request) {
  const struct {
    const char* name;
    int64_t value, least, most;
  } kRanges[] = {
      {"weight bytes", request.weight_bytes, 0, kMostBytes},
      {"table bytes", request.table_bytes, 0, kMostBytes},
      {"fixed workspace bytes", request.workspace.fixed_bytes, 0, kMostBytes},
      {"workspace bytes per token", request.workspace.bytes_per_token, 0, kMostBytes / kMostTokens},
      {"workspace bytes per sequence", request.workspace.bytes_per_sequence, 0, int64_t{1} << 30},
      {"runtime bytes", request.runtime_bytes, 0, kMostBytes},
      {"runtime bytes per sequence", request.runtime_bytes_per_sequence, 0, int64_t{1} << 30},
      {"margin bytes", request.margin_bytes, 0, kMostBytes},
      {"arena rounding bytes", request.arena_rounding_bytes, 0, int64_t{1} << 30},
      {request.kv_option.c_str(), request.kv_bytes, 0, kMostBytes},
      {"cached bytes", request.cached_bytes, 0, kMostBytes},
      {"prompt tokens", request.load.prompt_tokens, 1, kMostTokens},
      {"output tokens", request.load.output_tokens, 0, kMostTokens},
      {"step tokens", request.load.step_tokens, 1, kMostTokens},
      {"sequences at once", request.max_running, 0, kMostTokens},
  };
  for (const auto& range : kRanges) {
    if (range.value >= range.least && range.value <= range.most) continue;
    return OutOfRange(range.name, range.value, range.least, range.most);
  }
  if (request.memory_bytes < 1 || request.memory_bytes > kMostBytes) {
    return OutOfRange(request.memory_option, request.memory_bytes, 1, kMostBytes);
  }
  if (request.context_tokens < 1 || request.context_tokens > kMostTokens) {
    return OutOfRange(request.context_option, request.context_tokens, 1, kMostTokens);
  }
  if (request.load.tokens() > request.context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(request.context_option, ": ", request.context_tokens, " tokens; sequences of ",
                     request.load.prompt_tokens, " prompt and ", request.load.output_tokens,
                     " generated tokens are longer"));
  }
  return CheckKvScheme(request.scheme, request.shape);
}

class Planner {
 public:
  explicit Planner(const MemoryRequest& request)
      : request_(request),
        layout_(request.shape, request.scheme),
        unit_(layout_, 0),
        demand_(layout_, request.scheme, request.load) {
    const KvLoad context = {.prompt_tokens = request.context_tokens,
                            .step_tokens = request.load.step_tokens};
    context_peak_ = KvDemandModel(layout_, request.scheme, context).peak();
    one_slabs_ = SlabsFor(unit_, context_peak_);
  }

  absl::StatusOr<MemoryPlan> Plan() const;
  /// kMostBytes + 1 when it is more.
  int64_t MemoryFor(int64_t sequences) const {
    const int64_t slabs = std::max(one_slabs_, demand_.SlabsTogether(unit_, sequences));
    if (slabs > kMostBytes / unit_.slab_bytes) return kMostBytes + 1;
    return FixedBytes(sequences) + slabs * unit_.slab_bytes;
  }

 private:
  int64_t Workspace(int64_t sequences) const {
    return request_.workspace.At(std::max<int64_t>(request_.load.step_tokens, sequences),
                                 sequences);
  }
  int64_t Runtime(int64_t sequences) const {
    return request_.runtime_bytes + request_.runtime_bytes_per_sequence * sequences;
  }
  /// All but the arena, with that many sequences at once.
  int64_t FixedBytes(int64_t sequences) const {
    return request_.weight_bytes + request_.table_bytes + Workspace(sequences) +
           Runtime(sequences) + request_.margin_bytes + request_.arena_rounding_bytes;
  }
  int64_t SlabsOf(int64_t arena_bytes) const {
    return std::max<int64_t>(0, arena_bytes) / unit_.slab_bytes;
  }
  /// Slabs of the budget when the workspace is that of so many sequences.
  int64_t SlabsWith(int64_t sequences) const {
    const int64_t left = request_.memory_bytes - FixedBytes(sequences);
    return SlabsOf(request_.kv_bytes > 0 ? std::min(left, request_.kv_bytes) : left);
  }
  bool Fit(int64_t sequences, int64_t slabs) const {
    return demand_.SlabsTogether(unit_, sequences) <= slabs;
  }
  /// More slabs than these are of no use to max_running sequences in the scheme's precision, or to
  /// one that is exact.
  int64_t MostSlabs() const;
  absl::Status CheckFixed(int64_t sequences) const;
  absl::Status CheckOneFits(int64_t slabs, int64_t sequences) const;
  void FillLedger(int64_t sequences, MemoryPlan& plan) const;

  const MemoryRequest& request_;
  const KvLayout layout_;
  const ArenaCut unit_;  // of no slabs: what one holds
  const KvDemandModel demand_;
  KvRecords context_peak_;
  int64_t one_slabs_ = 0;  // one sequence of the whole context
};

int64_t Planner::MostSlabs() const {
  KvRecords all = context_peak_;
  for (int64_t& count : all.count) count *= request_.max_running;
  const int64_t pages =
      (request_.context_tokens + request_.scheme.page_tokens - 1) / request_.scheme.page_tokens;
  KvRecords exact;
  exact[KvRecord::kNear] = pages * request_.scheme.near_records(KvPrecision::kExact);
  return std::max(SlabsFor(unit_, all), SlabsFor(unit_, exact)) + SlabsOf(request_.cached_bytes);
}

absl::Status Planner::CheckFixed(int64_t sequences) const {
  if (FixedBytes(sequences) + request_.kv_bytes <= request_.memory_bytes) return absl::OkStatus();
  const int64_t least =
      FixedBytes(sequences) + std::max(request_.kv_bytes, one_slabs_ * unit_.slab_bytes);
  return absl::InvalidArgumentError(absl::StrCat(
      request_.memory_option, ": ", request_.memory_bytes, " bytes (",
      ReadableBytes(request_.memory_bytes), ") are less than the ", request_.weight_bytes,
      " of the weights, ", request_.table_bytes, " of tables, ", Workspace(sequences),
      " of workspace, ",
      Runtime(sequences) == 0
          ? ""
          : absl::StrCat(Runtime(sequences),
                         " for the rest of the process (threads, the requests of "
                         "engine.max_running and max_waiting), "),
      request_.margin_bytes, " of margin",
      request_.kv_bytes > 0 ? absl::StrCat(" and ", request_.kv_bytes, " of KV cache") : "",
      ": raise it to ", least, " (", ReadableBytes(least), ") or more"));
}

absl::Status Planner::CheckOneFits(int64_t slabs, int64_t sequences) const {
  if (slabs >= one_slabs_) return absl::OkStatus();
  ArenaCut cut = unit_;
  cut.slabs = static_cast<int32_t>(slabs);
  const int64_t fits = TokensAlone(layout_, request_.scheme, cut);
  const int64_t need = one_slabs_ * unit_.slab_bytes;
  const int64_t have =
      request_.kv_bytes > 0 ? request_.kv_bytes : request_.memory_bytes - FixedBytes(sequences);
  return absl::InvalidArgumentError(absl::StrCat(
      request_.kv_bytes > 0 ? request_.kv_option : request_.memory_option, ": ", have, " bytes (",
      ReadableBytes(have), ") for the KV cache; one sequence of ", request_.context_option, " = ",
      request_.context_tokens, " in the KV scheme '", request_.scheme.name, "' needs ", need, " (",
      ReadableBytes(need), "): raise the memory by ", need - have, " bytes",
      fits > 0 ? absl::StrCat(", or lower the context to ", fits, " tokens") : "",
      request_.scheme.seals() ? "" : ", or take a KV scheme of fewer bits"));
}

absl::StatusOr<MemoryPlan> Planner::Plan() const {
  MemoryPlan plan;
  int64_t slabs = 0;
  int64_t workspace_sequences = request_.max_running;
  if (request_.max_running > 0) {
    ASYMSERVE_RETURN_IF_ERROR(CheckFixed(request_.max_running));
    slabs = std::min(SlabsWith(request_.max_running), MostSlabs());
    ASYMSERVE_RETURN_IF_ERROR(CheckOneFits(slabs, request_.max_running));
  } else {
    ASYMSERVE_RETURN_IF_ERROR(CheckFixed(1));
    ASYMSERVE_RETURN_IF_ERROR(CheckOneFits(SlabsWith(1), 1));
    workspace_sequences = std::max<int64_t>(1, LargestThatFits([&](int64_t count) {
                                              const int64_t left = SlabsWith(count);
                                              return left >= one_slabs_ && Fit(count, left);
                                            }));
    slabs = SlabsWith(workspace_sequences);
  }
  const int64_t most_per_slab = *std::max_element(unit_.per_slab.begin(), unit_.per_slab.end());
  if (slabs > std::numeric_limits<int32_t>::max() / most_per_slab) {
    return absl::InvalidArgumentError(
        absl::StrCat(request_.memory_option, ": ", request_.memory_bytes, " bytes hold more than ",
                     std::numeric_limits<int32_t>::max(), " records of this model; lower it"));
  }
  plan.arena = unit_;
  plan.arena.slabs = static_cast<int32_t>(slabs);
  plan.capacity.tokens = TokensAlone(layout_, request_.scheme, plan.arena);
  plan.capacity.sequences = LargestThatFits([&](int64_t count) { return Fit(count, slabs); });
  plan.running = request_.max_running > 0 ? std::min(plan.capacity.sequences, request_.max_running)
                                          : std::min(plan.capacity.sequences, workspace_sequences);
  plan.records = demand_.Together(plan.running);
  plan.sealed_bits = layout_.sealed_bits();
  plan.effective_bits = layout_.EffectiveBits(request_.load.tokens());
  FillLedger(workspace_sequences, plan);
  return plan;
}

void Planner::FillLedger(int64_t sequences, MemoryPlan& plan) const {
  const int64_t near_bytes = layout_.record_bytes(KvRecord::kNear);
  const int64_t pages =
      (request_.load.tokens() + request_.scheme.page_tokens - 1) / request_.scheme.page_tokens;
  const int64_t near = plan.records[KvRecord::kNear];
  const int64_t sink = plan.running * std::min<int64_t>(request_.scheme.sink_pages, pages);
  // Where pages are never sealed, the complete ones are near, and only the last one is open.
  const int64_t open = request_.scheme.seals() ? near - sink : std::min(near, plan.running);
  MemoryLedger& ledger = plan.ledger;
  ledger.budget_bytes = request_.memory_bytes;
  ledger[LedgerRow::kWeights] = request_.weight_bytes;
  ledger[LedgerRow::kWorkspace] = Workspace(sequences);
  ledger[LedgerRow::kTables] = request_.table_bytes;
  ledger[LedgerRow::kSinkPages] = sink * near_bytes;
  ledger[LedgerRow::kOpenPages] = open * near_bytes;
  ledger[LedgerRow::kSealedPages] =
      (near - sink - open) * near_bytes +
      plan.records[KvRecord::kBase] * layout_.record_bytes(KvRecord::kBase) +
      plan.records[KvRecord::kRefinement] * layout_.record_bytes(KvRecord::kRefinement);
  ledger[LedgerRow::kRuntime] = Runtime(sequences);
  ledger[LedgerRow::kMargin] = request_.margin_bytes;
  plan.SetArenaMapped(plan.kv_bytes());
}

}  // namespace

void MemoryPlan::SetArenaMapped(int64_t bytes) {
  int64_t& spare = ledger[LedgerRow::kSparePages];
  int64_t& unused = ledger[LedgerRow::kUnused];
  spare = unused = 0;
  spare = bytes - ledger.kv_bytes();
  unused = ledger.budget_bytes - ledger.total();
}

absl::StatusOr<MemoryPlan> PlanMemory(const MemoryRequest& request) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRequest(request));
  return Planner(request).Plan();
}

absl::StatusOr<int64_t> MemoryForSequences(const MemoryRequest& request, int64_t sequences) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRequest(request));
  if (sequences < 1 || sequences > kMostSequences) {
    return OutOfRange("sequences", sequences, 1, kMostSequences);
  }
  const int64_t bytes = Planner(request).MemoryFor(sequences);
  if (bytes <= kMostBytes) return bytes;
  return absl::InvalidArgumentError(absl::StrCat("sequences: ", sequences, " of ",
                                                 request.load.tokens(), " tokens need more than ",
                                                 ReadableBytes(kMostBytes)));
}

}  // namespace asymserve
