#include "engine/runtime/canary.h"

#include <algorithm>
#include <cmath>

#include "engine/quality/quality_metrics.h"

namespace asymserve {
namespace {

/// A bijection that leaves no pattern (splitmix64).
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

bool CatchesUp(const StepItem& item) {
  return item.role == StepItem::Role::kPrefill || !item.sample;
}

}  // namespace

double CanaryRate(const CanaryOptions& options) {
  const bool exact = !options.scheme.seals() && options.scheme.near == KvCodec::kHalf;
  const bool fits = options.step_tokens >= 2 && options.max_rows >= 2;
  return exact || !fits ? 0.0 : options.rate;
}

Canary::Canary(const CanaryOptions& options, CanaryMetrics& metrics)
    : options_(options), rate_(CanaryRate(options)), metrics_(metrics) {}

void Canary::SetRate(double rate) {
  CanaryOptions changed = options_;
  changed.rate = rate;
  rate_.store(CanaryRate(changed), std::memory_order_relaxed);
}

bool Canary::Chooses(RequestId id, uint64_t seed) const {
  const uint64_t hash = Mix(seed ^ Mix(static_cast<uint64_t>(id)));
  return static_cast<double>(hash >> 11) * 0x1p-53 < rate();
}

void Canary::OnEnd(Generation& generation, const RecordPool& arena) {
  const GenerateRequest& request = generation.request->request;
  if (generation.index != 0 || request.kv_precision == KvPrecision::kExact) return;
  if (!Chooses(generation.request->id, request.sampling.seed)) return;
  const bool complete =
      generation.finish == FinishReason::kEos || generation.finish == FinishReason::kStopString ||
      generation.finish == FinishReason::kStopToken || generation.finish == FinishReason::kLength;
  if (!complete) return metrics_.incomplete.Add();
  if (generation.degraded_from >= 0) return metrics_.degraded.Add();
  if (active()) return metrics_.busy.Add();
  const ShadowSpec spec = {.prompt_tokens = static_cast<int32_t>(request.prompt.size()),
                           .tokens = static_cast<int32_t>(generation.tokens.size())};
  shadow_ = Shadow::Begin(spec, options_.scheme, options_.arena, arena);
  if (shadow_ == nullptr) return metrics_.no_memory.Add();
  tokens_ = std::move(generation.tokens);
  paused_ = 0;
}

int32_t Canary::SpareTokens(const StepPlan& plan, int32_t waiting, int32_t catch_up_tokens) const {
  if (waiting > 0) return 0;
  if (plan.empty()) return std::min(kStepTokens, options_.step_tokens);
  if (std::any_of(plan.items.begin(), plan.items.end(), CatchesUp)) return 0;
  return std::min({kStepTokens, catch_up_tokens, options_.step_tokens - plan.tokens});
}

bool Canary::Join(const StepPlan& plan, int32_t waiting, int32_t catch_up_tokens,
                  const RecordPool& arena, BatchArrays& batch) {
  step_ = {};
  if (shadow_ == nullptr) return false;
  if (!shadow_->HasRecords(arena)) {
    End(metrics_.memory_wanted);
    return false;
  }
  const auto users = static_cast<int32_t>(plan.items.size());  // no more rows than items
  std::optional<ShadowStep> step =
      shadow_->Plan(SpareTokens(plan, waiting, catch_up_tokens), options_.max_rows - users);
  if (!step.has_value()) {
    End(metrics_.no_memory);
    return false;
  }
  if (step->empty()) {
    if (!plan.empty() && ++paused_ > kMaxPause) End(metrics_.steps_wanted);
    return false;
  }
  paused_ = 0;
  step_ = *std::move(step);
  const std::span<const int32_t> tokens = std::span(tokens_).subspan(
      static_cast<size_t>(step_.begin), static_cast<size_t>(step_.count));
  batch.Add(tokens, step_.begin, step_.scheme_pages, step_.rows);
  batch.Add(tokens, step_.begin, step_.exact_pages, step_.rows);
  batch.AddSeals(step_.seals);
  return true;
}

void Canary::Compare(const TensorView& logits, int64_t first) {
  const auto vocabulary = static_cast<size_t>(logits.shape[1]);
  for (int32_t row = 0; row < step_.rows; ++row) {
    const std::span<const float> scheme(logits.Row<float>(first + row), vocabulary);
    const std::span<const float> exact(logits.Row<float>(first + step_.rows + row), vocabulary);
    const int32_t position = step_.begin + step_.count - step_.rows + row;
    const PositionLoss loss =
        asymserve::Compare(exact, scheme, tokens_[static_cast<size_t>(position) + 1]);
    if (!std::isfinite(loss.kl)) return End(metrics_.failed);
    metrics_.kl.Observe(loss.kl);
    (loss.same_top ? metrics_.same_top : metrics_.other_top).Add();
  }
  if (shadow_->done()) End(metrics_.finished);
}

void Canary::Stop() {
  if (active()) End(metrics_.stopped);
}

void Canary::End(Counter& result) {
  result.Add();
  shadow_.reset();
  tokens_ = {};
}

}  // namespace asymserve
