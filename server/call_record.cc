#include "server/call_record.h"

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "server/log_rate.h"

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
  ASYMSERVE_CHECK(!rejection_.has_value());
  rejection_ = reason;
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
  if (rejection_.has_value()) metrics_.refusal_seconds.Observe(elapsed_seconds());
}

void CallRecord::WriteRefused(std::string_view code, Rejection reason) const {
  static std::array<LogRate, kRejectionNames.size()> rates;
  const auto index = static_cast<size_t>(reason);
  const std::optional<int64_t> left_out = rates[index].Admit(LogRate::Clock::now());
  Log(left_out.has_value() ? LogLevel::kInfo : LogLevel::kDebug, "request",
      {{"method", kMethodNames[static_cast<size_t>(method_)]},
       {"id", request_},
       {"code", code},
       {"refused", kRejectionNames[index]},
       {"total_s", elapsed_seconds()},
       {"key", key_},
       {"peer", peer_},
       {"left_out", left_out.value_or(0)}});
}

void CallRecord::Write(const grpc::Status& status) const {
  const auto code = static_cast<size_t>(status.error_code());
  const std::string_view method = kMethodNames[static_cast<size_t>(method_)];
  const std::string_view code_name = kCodeNames[code < kCodeNames.size() ? code : 2];
  if (rejection_.has_value()) return WriteRefused(code_name, *rejection_);
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
