#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/backend/token_draw.h"
#include "engine/base/check.h"
#include "engine/base/exp_non_positive.h"
#include "engine/base/philox.h"

namespace asymserve {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
// Index of the largest value, ties to the lowest; -1 if any is NaN.
int32_t ArgMax(std::span<const float> values) {
  float best = kNever;
  bool nan = false;
  for (const float value : values) {
    best = std::max(best, value);
    nan |= value != value;
  }
  if (nan) return -1;
  return static_cast<int32_t>(std::find(values.begin(), values.end(), best) - values.begin());
}

// sum of exp(scale * (v - top)) in a fixed order of eight lanes.
double SumExp(std::span<const float> values, float top, float scale, std::span<float> weights) {
  for (size_t i = 0; i < values.size(); ++i) weights[i] = ExpNonPositive((values[i] - top) * scale);
  double lanes[8] = {};
  for (size_t i = 0; i < values.size(); ++i) lanes[i % 8] += static_cast<double>(weights[i]);
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}

}  // namespace

absl::Status NanLogitsError() {
  return absl::InternalError("the model produced NaN logits for this sequence");
}

absl::Status NothingToDrawError() {
  return absl::InternalError("no token can be drawn: all logits are banned or not finite");
}

bool UsesHistory(const SamplingParams& params) {
  return params.repetition_penalty != 1 || params.frequency_penalty != 0 ||
         params.presence_penalty != 0;
}

Sampler::Sampler(int32_t vocabulary)
    : logits_(static_cast<size_t>(vocabulary)), weights_(static_cast<size_t>(vocabulary)) {}

void Sampler::Adjust(const SampleRequest& request) {
  const SamplingParams& params = *request.params;
  std::copy(request.logits.begin(), request.logits.end(), logits_.begin());
  for (const auto& [id, bias] : params.logit_bias) logits_[static_cast<size_t>(id)] += bias;
  if (UsesHistory(params)) {
    ASYMSERVE_CHECK(request.history != nullptr);
    if (params.repetition_penalty != 1) {
      for (const int32_t id : request.history->seen) {
        float& logit = logits_[static_cast<size_t>(id)];
        logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
      }
    }
    for (const auto& [id, count] : request.history->output_counts) {
      logits_[static_cast<size_t>(id)] -=
          params.frequency_penalty * static_cast<float>(count) + params.presence_penalty;
    }
  }
  for (const int32_t id : request.banned) logits_[static_cast<size_t>(id)] = kNever;
}

absl::StatusOr<SampledToken> Sampler::Sample(const SampleRequest& request) {
  ASYMSERVE_CHECK(request.logits.size() == logits_.size());
  const SamplingParams& params = *request.params;
  const int32_t raw_best = ArgMax(request.logits);
  if (raw_best < 0) return NanLogitsError();

  const bool adjusted =
      !params.logit_bias.empty() || UsesHistory(params) || !request.banned.empty();
  int32_t best = raw_best;
  std::span<const float> logits = request.logits;
  if (adjusted || params.temperature > 0) {
    Adjust(request);
    logits = logits_;
    best = ArgMax(logits_);
  }
  if (best < 0 || !std::isfinite(logits[static_cast<size_t>(best)])) {
    return NothingToDrawError();
  }

  SampledToken sampled;
  sampled.id = best;
  if (params.temperature > kCertainBelow) {
    const float top = logits[static_cast<size_t>(best)];
    const bool filtered =
        params.top_k > 0 || params.top_p < 1 || params.min_p > 0 || params.typical_p < 1;
    sampled.id = filtered ? DrawFiltered(request, top, 1 / params.temperature)
                          : DrawFromAll(request, top, 1 / params.temperature);
  }
  if (request.logprobs < 0) return sampled;

  const float raw_top = request.logits[static_cast<size_t>(raw_best)];
  const double log_sum = std::log(SumExp(request.logits, raw_top, 1, weights_));
  const auto logprob = [&](int32_t id) {
    return static_cast<float>(
        static_cast<double>(request.logits[static_cast<size_t>(id)] - raw_top) - log_sum);
  };
  sampled.logprob = logprob(sampled.id);
  if (request.logprobs > 0) {
    std::vector<int32_t> ids(request.logits.size());
    for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i);
    const auto count = std::min<ptrdiff_t>(request.logprobs, static_cast<ptrdiff_t>(ids.size()));
    std::partial_sort(ids.begin(), ids.begin() + count, ids.end(), [&](int32_t a, int32_t b) {
      const float x = request.logits[static_cast<size_t>(a)];
      const float y = request.logits[static_cast<size_t>(b)];
      return x != y ? x > y : a < b;
    });
    for (ptrdiff_t i = 0; i < count; ++i) {
      sampled.top.push_back({ids[static_cast<size_t>(i)], logprob(ids[static_cast<size_t>(i)])});
    }
  }
  return sampled;
}

int32_t Sampler::DrawFromAll(const SampleRequest& request, float top, float inverse_temperature) {
  const double sum = SumExp(logits_, top, inverse_temperature, weights_);
  const double target = PhiloxUniform(request.params->seed, request.position) * sum;
  double cumulative = 0;
  int32_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (logits_[i] == kNever) continue;
    cumulative += static_cast<double>(weights_[i]);
    last = static_cast<int32_t>(i);
    if (cumulative > target) break;
  }
  return last;
}

int32_t Sampler::DrawFiltered(const SampleRequest& request, float top, float inverse_temperature) {
  const SamplingParams& params = *request.params;
  candidates_.clear();
  for (size_t i = 0; i < logits_.size(); ++i) {
    const float scaled = (logits_[i] - top) * inverse_temperature;
    if (scaled < kNegligibleNats) continue;
    candidates_.push_back({static_cast<double>(ExpNonPositive(scaled)), static_cast<int32_t>(i)});
  }
  const auto more_likely = [](const Candidate& a, const Candidate& b) {
    return a.weight != b.weight ? a.weight > b.weight : a.id < b.id;
  };
  if (params.top_k > 0 && static_cast<size_t>(params.top_k) < candidates_.size()) {
    std::nth_element(candidates_.begin(), candidates_.begin() + params.top_k, candidates_.end(),
                     more_likely);
    candidates_.resize(static_cast<size_t>(params.top_k));
  }
  std::sort(candidates_.begin(), candidates_.end(), more_likely);
  if (params.typical_p < 1) {
    KeepTypical(static_cast<double>(params.typical_p));
    std::sort(candidates_.begin(), candidates_.end(), more_likely);
  }
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  if (params.top_p < 1) {
    const double wanted = static_cast<double>(params.top_p) * sum;
    double kept = 0;
    size_t count = 0;
    while (count < candidates_.size() && kept < wanted) kept += candidates_[count++].weight;
    candidates_.resize(std::max<size_t>(count, 1));
    sum = kept;
  }
  if (params.min_p > 0) {
    const double floor = static_cast<double>(params.min_p) * candidates_.front().weight;
    while (candidates_.size() > 1 && candidates_.back().weight < floor) {
      sum -= candidates_.back().weight;
      candidates_.pop_back();
    }
  }
  const double target = PhiloxUniform(params.seed, request.position) * sum;
  double cumulative = 0;
  for (const Candidate& candidate : candidates_) {
    cumulative += candidate.weight;
    if (cumulative > target) return candidate.id;
  }
  return candidates_.back().id;
}

// Meister et al. 2022: the tokens whose surprise is closest to the distribution's entropy, until
// their probability reaches typical_p.
void Sampler::KeepTypical(double typical_p) {
  double sum = 0;
  for (const Candidate& candidate : candidates_) sum += candidate.weight;
  double entropy = 0;
  for (const Candidate& candidate : candidates_) {
    const double p = candidate.weight / sum;
    if (p > 0) entropy -= p * std::log(p);
  }
  by_distance_.clear();
  for (const Candidate& candidate : candidates_) {
    by_distance_.emplace_back(std::abs(-std::log(candidate.weight / sum) - entropy), candidate);
  }
  std::stable_sort(by_distance_.begin(), by_distance_.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  double kept = 0;
  candidates_.clear();
  for (const auto& [distance, candidate] : by_distance_) {
    if (!candidates_.empty() && kept >= typical_p * sum) break;
    kept += candidate.weight;
    candidates_.push_back(candidate);
  }
}

}  // namespace asymserve
