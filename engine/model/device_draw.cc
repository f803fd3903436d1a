#include "engine/model/device_draw.h"

#include <algorithm>
#include <cmath>

#include "engine/base/philox.h"

namespace asymserve {

bool DrawsOnDevice(const SamplingParams& params, int32_t logprobs) {
  if (params.typical_p < 1 || logprobs > 0) return false;
  std::vector<int32_t> biased;
  for (const auto& [token, bias] : params.logit_bias) biased.push_back(token);
  std::sort(biased.begin(), biased.end());
  return std::adjacent_find(biased.begin(), biased.end()) == biased.end();
}

int64_t CountEdits(const SampleRequest& request) {
  const SamplingParams& params = *request.params;
  size_t count = params.logit_bias.size() + request.banned.size();
  if (UsesHistory(params)) {
    if (params.repetition_penalty != 1) count += request.history->seen.size();
    count += request.history->output_counts.size();
  }
  return static_cast<int64_t>(count);
}

TokenDraw MakeDraw(const SampleRequest& request, int32_t row, std::vector<LogitEdit>* edits) {
  const SamplingParams& params = *request.params;
  TokenDraw draw;
  draw.row = row;
  draw.first_edit = static_cast<int32_t>(edits->size());
  for (const auto& [token, bias] : params.logit_bias) {
    edits->push_back({token, EditKind::kBias, bias});
  }
  if (UsesHistory(params)) {
    if (params.repetition_penalty != 1) {
      for (const int32_t token : request.history->seen) {
        edits->push_back({token, EditKind::kSeen, 0});
      }
    }
    for (const auto& [token, count] : request.history->output_counts) {
      edits->push_back({token, EditKind::kCount, static_cast<float>(count)});
    }
  }
  for (const int32_t token : request.banned) edits->push_back({token, EditKind::kBan, 0});
  draw.edit_count = static_cast<int32_t>(edits->size()) - draw.first_edit;
  draw.repetition_penalty = params.repetition_penalty;
  draw.frequency_penalty = params.frequency_penalty;
  draw.presence_penalty = params.presence_penalty;
  draw.logprob = request.logprobs >= 0;
  if (params.temperature <= kCertainBelow) return draw;
  draw.inverse_temperature = 1 / params.temperature;
  draw.top_k = params.top_k;
  draw.top_p = params.top_p;
  draw.min_p = params.min_p;
  draw.uniform = PhiloxUniform(params.seed, request.position);
  return draw;
}

absl::StatusOr<SampledToken> ToSampled(const DrawnToken& drawn, bool logprob) {
  if (drawn.token == kNanLogits) return NanLogitsError();
  if (drawn.token < 0) return NothingToDrawError();
  SampledToken sampled;
  sampled.id = drawn.token;
  if (logprob) {
    sampled.logprob =
        static_cast<float>(static_cast<double>(drawn.logit - drawn.largest) - std::log(drawn.sum));
  }
  return sampled;
}

}  // namespace asymserve
