#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "engine/kv/ids.h"
#include "engine/kv/scheme.h"
#include "engine/model/sampling.h"

namespace asymserve {

struct StopParams {
  int32_t max_tokens = 0;            // 1 .. context; 0: as many as the context allows
  int32_t min_tokens = 0;            // end tokens are not sampled, stop strings ignored before this
  std::vector<std::string> strings;  // at most 16, each 1 .. 256 bytes of UTF-8
  std::vector<int32_t> token_ids;    // at most 64
  bool include_stop_string = false;  // deliver the matched string
  bool ignore_eos = false;           // do not end at the model's end tokens
};

/// One request, tokenized. Field names in errors are those of GenerateRequest in inference.proto.
struct GenerateRequest {
  std::vector<int32_t> prompt;  // 1 .. context - 1 ids
  int32_t n = 1;                // independent sequences, 1 .. 16; sequence i uses seed + i
  SamplingParams sampling;
  bool has_seed = false;
  StopParams stop;
  int32_t logprobs = -1;  // -1: none, 0: the chosen token, 1 .. 20: also the top ones
  bool skip_special_tokens = true;
  int32_t priority = 0;  // +-kMaxPriority, among the tenant's own
  std::string tenant;    // empty: the default one
  KvPrecision kv_precision = KvPrecision::kScheme;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  /// 1 .. kMaxQueueMs from Submit to the first step, without the time in which another sequence of
  /// the request computes the prompt.
  std::optional<int32_t> max_queue_ms;
};

inline constexpr int32_t kMaxQueueMs = 86'400'000;  // a day

struct RequestLimits {
  int32_t vocabulary = 0;
  int32_t max_context_tokens = 0;
};

/// InvalidArgument naming the field, the value and what is allowed. `prompt_field` is what the
/// prompt came from.
absl::Status ValidateRequest(const GenerateRequest& request, const RequestLimits& limits,
                             std::string_view prompt_field = "prompt");

enum class FinishReason : uint8_t {
  kNone,        // not the final delta
  kEos,         // the model ended: an end token
  kStopString,  // stop.strings[stop_index]
  kStopToken,   // stop.token_ids
  kLength,      // max_tokens or the context
  kCancelled,
  kDeadline,      // it passed, or came too near before the first step (`error` says so)
  kQueueTimeout,  // max_queue_ms passed before the first step
  kError,         // `error` says what; other requests go on unless the engine failed
};

struct TokenInfo {
  int32_t id = 0;
  float logprob = 0;  // if asked for
  std::vector<TokenLogProb> top;
};

/// Seconds of one sequence's life.
struct Timings {
  double queue = 0;        // Submit to first step
  double prefill = 0;      // first step to first token
  double first_token = 0;  // Submit to first token
  double total = 0;        // Submit to the end
};

/// A piece of one sequence's output. Text is complete UTF-8; tokens may come without text while a
/// character or a stop string is undecided.
struct Delta {
  RequestId request{};  // as Submit returned it, or is about to
  int32_t index = 0;    // which of the n sequences
  std::string text;
  std::vector<TokenInfo> tokens;
  FinishReason finish = FinishReason::kNone;
  // The rest is set on the final delta only.
  int32_t stop_index = -1;  // kStopString: into stop.strings
  int32_t stop_token = -1;  // kEos, kStopToken
  int32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  bool ran = false;            // some of its tokens were computed
  int32_t degraded_from = -1;  // first position computed from unrefined pages (EngineOptions)
  Timings timings;
  absl::Status error;  // kError, kDeadline
};

/// Where a request's output goes. Called on the delivery thread only.
class OutputSink {
 public:
  virtual ~OutputSink() = default;
  /// Must not block. False: the reader is gone or too slow, the request is cancelled; its remaining
  /// sequences still get their final delta.
  virtual bool Deliver(Delta delta) = 0;
};

}  // namespace asymserve
