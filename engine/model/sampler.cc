#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "engine/base/check.h"
#include "engine/base/exp_non_positive.h"
#include "engine/base/philox.h"

namespace asymserve {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 16;  // what compilers make vectors of

// Index of the largest value, ties to the lowest; -1 if any is NaN.
int32_t ArgMax(std::span<const float> values) {
  float largest[kLanes];
  int32_t nans[kLanes] = {};
  std::fill_n(largest, kLanes, kNever);
  const auto look = [&](size_t lane, float value) {
    largest[lane] = value > largest[lane] ? value : largest[lane];
    nans[lane] |= value != value ? 1 : 0;
  };
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) look(lane, values[i + lane]);
  }
  for (size_t lane = 0; i < values.size(); ++i, ++lane) look(lane, values[i]);
  if (std::any_of(nans, nans + kLanes, [](int32_t nan) { return nan != 0; })) return -1;
  const float best = *std::max_element(largest, largest + kLanes);
  return static_cast<int32_t>(std::find(values.begin(), values.end(), best) - values.begin());
}

// Ids of the `count` largest values, the largest first, ties to the lower id.
std::vector<int32_t> Largest(std::span<const float> values, size_t count) {
  std::vector<int32_t> ids;
  float least = kNever;
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    if (ids.size() == count && value <= least) continue;
    const auto place = std::upper_bound(ids.begin(), ids.end(), value, [&](float v, int32_t id) {
      return v > values[static_cast<size_t>(id)];
    });
    ids.insert(place, static_cast<int32_t>(i));
    if (ids.size() > count) ids.pop_back();
    least = values[static_cast<size_t>(ids.back())];
  }
  return ids;
}

// sum of exp(scale * (v - top)) in a fixed order of lanes.
double SumExp(std::span<const float> values, float top, float scale, std::span<float> weights) {
  for (size_t i = 0; i < values.size(); ++i) weights[i] = ExpNonPositive((values[i] - top) * scale);
  double sums[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += static_cast<double>(weights[i + lane]);
    }
  }
  for (size_t lane = 0; i < values.size(); ++i, ++lane)
    sums[lane] += static_cast<double>(weights[i]);
  return std::accumulate(sums, sums + kLanes, 0.0);
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
    : logits_(static_cast<size_t>(vocabulary)),
      weights_(static_cast<size_t>(vocabulary)),
      filtered_(vocabulary) {}

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
  if (adjusted) {
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
    sampled.id =
        filtered ? filtered_.Draw(logits, top, params, PhiloxUniform(params.seed, request.position))
                 : DrawFromAll(request, logits, top);
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
    for (const int32_t id : Largest(request.logits, static_cast<size_t>(request.logprobs))) {
      sampled.top.push_back({id, logprob(id)});
    }
  }
  return sampled;
}

int32_t Sampler::DrawFromAll(const SampleRequest& request, std::span<const float> logits,
                             float top) {
  const double sum = SumExp(logits, top, 1 / request.params->temperature, weights_);
  const double target = PhiloxUniform(request.params->seed, request.position) * sum;
  double cumulative = 0;
  int32_t last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (logits[i] == kNever) continue;
    cumulative += static_cast<double>(weights_[i]);
    last = static_cast<int32_t>(i);
    if (cumulative > target) break;
  }
  return last;
}

}  // namespace asymserve
