#include "server/call_record.h"

#include "engine/base/check.h"
#include "engine/base/log.h"

namespace asymserve {

std::string_view FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return "none";
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kStopToken:
      return "stop_token";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
    case FinishReason::kQueueTimeout:
      return "queue_timeout";
    case FinishReason::kError:
      return "error";
  }
  return "none";
}

CallRecord::CallRecord(Method method, const grpc::ServerContextBase& context,
                       ServerMetrics& metrics)
    : method_(method), metrics_(metrics), peer_(context.peer()) {
  metrics_.open_calls.Add(1);
}

CallRecord::~CallRecord() {
  ASYMSERVE_CHECK(ended_);
  metrics_.open_calls.Add(-1);
}

void CallRecord::Reject(Rejection reason) {
  ASYMSERVE_CHECK(!rejected_);
  rejected_ = true;
  metrics_.rejections[static_cast<size_t>(reason)].Add();
}

void CallRecord::AddFinal(const Delta& delta) {
  if (finish_ == FinishReason::kNone) finish_ = delta.finish;
  prompt_tokens_ = delta.prompt_tokens;
  ran_ = ran_ || delta.ran;
  cached_tokens_ = delta.cached_tokens;
  generated_tokens_ += delta.generated_tokens;
  degraded_ += delta.degraded_from >= 0 ? 1 : 0;
  timings_ = delta.timings;
}

void CallRecord::End(const grpc::Status& status) {
  ASYMSERVE_CHECK(!ended_);
  ended_ = true;
  use_.End(int64_t{ran_ ? prompt_tokens_ : 0} + generated_tokens_);
  const auto code = static_cast<size_t>(status.error_code());
  metrics_.requests[static_cast<size_t>(method_)][code < kCodeNames.size() ? code : 2].Add();
  Write(status);
  if (rejected_) metrics_.refusal_seconds.Observe(elapsed_seconds());
}

void CallRecord::Write(const grpc::Status& status) const {
  const auto code = static_cast<size_t>(status.error_code());
  const std::string_view method = kMethodNames[static_cast<size_t>(method_)];
  const std::string_view code_name = kCodeNames[code < kCodeNames.size() ? code : 2];
  if (finish_ == FinishReason::kNone) {
    Log(LogLevel::kInfo, "request",
        {{"method", method},
         {"id", request_},
         {"code", code_name},
         {"total_s", elapsed_seconds()},
         {"key", key_},
         {"peer", peer_}});
    return;
  }
  Log(LogLevel::kInfo, "request",
      {{"method", method},
       {"id", request_},
       {"code", code_name},
       {"finish", FinishReasonName(finish_)},
       {"prompt_tokens", prompt_tokens_},
       {"cached_tokens", cached_tokens_},
       {"generated_tokens", generated_tokens_},
       {"kv", precision_ == KvPrecision::kExact ? "exact"
              : degraded_ > 0                   ? "degraded"
                                                : "scheme"},
       {"queue_s", timings_.queue},
       {"prefill_s", timings_.prefill},
       {"first_token_s", timings_.first_token},
       {"total_s", elapsed_seconds()},
       {"key", key_},
       {"peer", peer_}});
}

}  // namespace asymserve
