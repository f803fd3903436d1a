#include "engine/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numeric>

#include "engine/base/check.h"
#include "engine/base/exp_non_positive.h"
#include "engine/base/philox.h"

namespace asymserve {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kLanes = 16;  // of sums

// Four floats of a register, and what their comparisons give.
using Floats = float __attribute__((vector_size(16)));
using Masks = int32_t __attribute__((vector_size(16)));
constexpr size_t kFloats = 4;

Floats LoadFloats(const float* from) {
  Floats values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

struct BlockLargest {
  float value = kNever;
  bool has_nan = false;
};

BlockLargest LargestOf(std::span<const float> block) {
  constexpr size_t kChains = 4;  // that run beside each other
  Floats largest[kChains];
  Masks nans = {};
  for (Floats& chain : largest) chain = Floats{kNever, kNever, kNever, kNever};
  size_t i = 0;
  for (; i + kChains * kFloats <= block.size(); i += kChains * kFloats) {
    for (size_t chain = 0; chain < kChains; ++chain) {
      const Floats values = LoadFloats(&block[i + chain * kFloats]);
      largest[chain] = values > largest[chain] ? values : largest[chain];
      nans |= values != values;  // NOLINT(misc-redundant-expression)
    }
  }
  BlockLargest result;
  const auto look = [&result](float value) {
    result.value = value > result.value ? value : result.value;
    result.has_nan = result.has_nan || value != value;
  };
  for (; i < block.size(); ++i) look(block[i]);
  for (const Floats& values : largest) {
    for (size_t lane = 0; lane < kFloats; ++lane) look(values[lane]);
  }
  for (size_t lane = 0; lane < kFloats; ++lane) result.has_nan = result.has_nan || nans[lane] != 0;
  return result;
}

// Index of the largest value, ties to the lowest; -1 if any is NaN.
int32_t ArgMax(std::span<const float> values) {
  constexpr size_t kBlock = 1024;  // so that only one is looked through for its index
  float best = kNever;
  size_t begin = 0;
  for (size_t i = 0; i < values.size(); i += kBlock) {
    const BlockLargest block = LargestOf(values.subspan(i, std::min(kBlock, values.size() - i)));
    if (block.has_nan) return -1;
    if (block.value <= best) continue;
    best = block.value;
    begin = i;
  }
  const auto from = values.begin() + static_cast<std::ptrdiff_t>(begin);
  return static_cast<int32_t>(std::find(from, values.end(), best) - values.begin());
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
