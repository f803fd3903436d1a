#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/kv/ids.h"
#include "engine/model/sampler.h"
#include "engine/runtime/backlog.h"
#include "engine/runtime/engine_metrics.h"
#include "engine/runtime/request.h"
#include "engine/sched/scheduler.h"
#include "engine/text/output_text.h"

namespace asymserve {

/// An accepted request. Fixed after Submit, so both threads may read it.
struct ActiveRequest {
  RequestId id{};
  GenerateRequest request;
  std::shared_ptr<OutputSink> sink;
  TimeUs submitted = 0;
  TimeUs start_by =
      kNoDeadline;             // a sequence that begins later, with the prompt, misses the deadline
  int32_t max_new_tokens = 0;  // resolved from stop.max_tokens
  std::shared_ptr<const PrefixChain> prefix;  // of the prompt; null: not shared
  std::vector<int32_t> seen;                  // its tokens, each once, if UsesHistory
  QueueShare share;                           // of each of its sequences
  TenantMetrics* tenant = nullptr;
};

/// One of a request's n sequences. Until it begins, it holds nothing that is as long as the prompt.
/// Engine thread only.
struct Generation {
  Generation(SequenceId sequence_id, std::shared_ptr<const ActiveRequest> owner, int32_t i,
             const Tokenizer& tokenizer);

  /// Before its first step.
  void Begin();
  int32_t generated() const {
    return tokens.empty() ? 0
                          : static_cast<int32_t>(tokens.size() - request->request.prompt.size());
  }

  SequenceId id;
  std::shared_ptr<const ActiveRequest> request;
  int32_t index;
  std::vector<int32_t> tokens;  // prompt, then output; empty until it begins
  SamplingParams sampling;      // with the seed of this sequence
  TokenHistory history;
  bool draws_on_device;  // as far as the backend can
  OutputText text;
  // What ended it; kNone while it goes on.
  FinishReason finish = FinishReason::kNone;
  int32_t stop_index = -1;
  int32_t stop_token = -1;
  absl::Status error;
  /// Index 0 of several: the others wait for its first token, to begin with the pages of its
  /// prompt.
  bool others_wait = false;
  TimeUs start_by = kNoDeadline;  // ActiveRequest::start_by, unless it begins with others' pages
  int32_t cached_tokens = 0;      // of the prompt, not computed when it first ran
  int32_t computed = 0;           // of the prompt, cached or by its own steps
  int32_t degraded_from = -1;     // first position computed from unrefined pages
  // Clock readings, 0 until they happen.
  TimeUs first_step = 0, first_token = 0, last_token = 0;
};

constexpr int32_t kSequenceBits = 4;  // n <= 16
constexpr SequenceId MakeSequenceId(RequestId request, int32_t index) {
  return static_cast<SequenceId>((static_cast<uint64_t>(request) << kSequenceBits) |
                                 static_cast<uint64_t>(index));
}

}  // namespace asymserve
