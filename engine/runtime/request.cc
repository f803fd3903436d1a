#include "engine/runtime/request.h"

#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/sched/sequence.h"

namespace asymserve {
namespace {

constexpr int32_t kMaxSequences = 16;
constexpr int32_t kMaxTopLogProbs = 20;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopStringBytes = 256;
constexpr size_t kMaxStopTokens = 64;
constexpr size_t kMaxLogitBias = 1024;

absl::Status Invalid(std::string_view field, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(std::string(field), ": ", std::string(problem)));
}

// Also refuses NaN: it fails every comparison.
absl::Status CheckRange(std::string_view field, float value, float low, float high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return Invalid(field, absl::StrCat(value, " is not in [", low, ", ", high, "]"));
}

absl::Status CheckToken(std::string_view field, int32_t token, int32_t vocabulary) {
  if (token >= 0 && token < vocabulary) return absl::OkStatus();
  return Invalid(field, absl::StrCat("token id ", token, " is not in [0, ", vocabulary, ")"));
}

absl::Status ValidateSampling(const SamplingParams& params, int32_t vocabulary) {
  constexpr float kLarge = 1e6f;
  constexpr float kSmallest = 1e-6f;
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("sampling.temperature", params.temperature, 0, 100));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("sampling.top_p", params.top_p, kSmallest, 1));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("sampling.min_p", params.min_p, 0, 1));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("sampling.typical_p", params.typical_p, kSmallest, 1));
  ASYMSERVE_RETURN_IF_ERROR(
      CheckRange("sampling.repetition_penalty", params.repetition_penalty, kSmallest, kLarge));
  ASYMSERVE_RETURN_IF_ERROR(
      CheckRange("sampling.frequency_penalty", params.frequency_penalty, -2, 2));
  ASYMSERVE_RETURN_IF_ERROR(
      CheckRange("sampling.presence_penalty", params.presence_penalty, -2, 2));
  if (params.top_k < 0) {
    return Invalid("sampling.top_k", absl::StrCat(params.top_k, " is negative; 0 keeps all"));
  }
  if (params.logit_bias.size() > kMaxLogitBias) {
    return Invalid("sampling.logit_bias",
                   absl::StrCat(params.logit_bias.size(), " entries, at most ", kMaxLogitBias));
  }
  for (const auto& [token, bias] : params.logit_bias) {
    ASYMSERVE_RETURN_IF_ERROR(CheckToken("sampling.logit_bias", token, vocabulary));
    ASYMSERVE_RETURN_IF_ERROR(CheckRange("sampling.logit_bias", bias, -kLarge, kLarge));
  }
  return absl::OkStatus();
}

absl::Status ValidateStop(const StopParams& stop, const RequestLimits& limits) {
  if (stop.max_tokens < 0) {
    return Invalid("stop.max_tokens", absl::StrCat(stop.max_tokens, " is negative"));
  }
  if (stop.min_tokens < 0) {
    return Invalid("stop.min_tokens", absl::StrCat(stop.min_tokens, " is negative"));
  }
  if (stop.max_tokens > 0 && stop.min_tokens > stop.max_tokens) {
    return Invalid(
        "stop.min_tokens",
        absl::StrCat(stop.min_tokens, " is more than stop.max_tokens ", stop.max_tokens));
  }
  if (stop.strings.size() > kMaxStopStrings) {
    return Invalid("stop.strings",
                   absl::StrCat(stop.strings.size(), " strings, at most ", kMaxStopStrings));
  }
  for (const std::string& text : stop.strings) {
    if (text.empty()) return Invalid("stop.strings", "a stop string is empty");
    if (text.size() > kMaxStopStringBytes) {
      return Invalid("stop.strings", absl::StrCat("a stop string has ", text.size(),
                                                  " bytes, at most ", kMaxStopStringBytes));
    }
  }
  if (stop.token_ids.size() > kMaxStopTokens) {
    return Invalid("stop.token_ids",
                   absl::StrCat(stop.token_ids.size(), " ids, at most ", kMaxStopTokens));
  }
  for (const int32_t token : stop.token_ids) {
    ASYMSERVE_RETURN_IF_ERROR(CheckToken("stop.token_ids", token, limits.vocabulary));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRequest(const GenerateRequest& request, const RequestLimits& limits,
                             std::string_view prompt_field) {
  const int64_t prompt_tokens = static_cast<int64_t>(request.prompt.size());
  if (prompt_tokens == 0) return Invalid(prompt_field, "is empty: at least one token is needed");
  if (prompt_tokens >= limits.max_context_tokens) {
    return Invalid(prompt_field,
                   absl::StrCat("has ", prompt_tokens, " tokens, the context leaves room for ",
                                limits.max_context_tokens - 1));
  }
  for (const int32_t token : request.prompt) {
    ASYMSERVE_RETURN_IF_ERROR(CheckToken(prompt_field, token, limits.vocabulary));
  }
  if (request.n < 1 || request.n > kMaxSequences) {
    return Invalid("n", absl::StrCat(request.n, " is not in [1, ", kMaxSequences, "]"));
  }
  if (request.logprobs < -1 || request.logprobs > kMaxTopLogProbs) {
    return Invalid("logprobs",
                   absl::StrCat(request.logprobs, " is not in [0, ", kMaxTopLogProbs, "]"));
  }
  if (request.priority < -kMaxPriority || request.priority > kMaxPriority) {
    return Invalid("priority", absl::StrCat(request.priority, " is not in [", -kMaxPriority, ", ",
                                            kMaxPriority, "]"));
  }
  if (request.max_queue_ms && (*request.max_queue_ms < 1 || *request.max_queue_ms > kMaxQueueMs)) {
    return Invalid("max_queue_ms",
                   absl::StrCat(*request.max_queue_ms, " is not in [1, ", kMaxQueueMs, "]"));
  }
  ASYMSERVE_RETURN_IF_ERROR(ValidateSampling(request.sampling, limits.vocabulary));
  ASYMSERVE_RETURN_IF_ERROR(ValidateStop(request.stop, limits));
  if (prompt_tokens + request.stop.max_tokens > limits.max_context_tokens) {
    return Invalid("stop.max_tokens",
                   absl::StrCat(request.stop.max_tokens, " and a prompt of ", prompt_tokens,
                                " tokens exceed the context of ", limits.max_context_tokens));
  }
  if (prompt_tokens + request.stop.min_tokens > limits.max_context_tokens) {
    return Invalid("stop.min_tokens",
                   absl::StrCat(request.stop.min_tokens, " and a prompt of ", prompt_tokens,
                                " tokens exceed the context of ", limits.max_context_tokens));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
