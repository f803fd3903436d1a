#include "server/call_record.h"

#include <algorithm>

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

namespace {

/// Into kCodeNames; a code that is none of them is UNKNOWN.
size_t CodeIndex(const grpc::Status& status) {
  const auto code = static_cast<size_t>(status.error_code());
  return code < kCodeNames.size() ? code : size_t{grpc::StatusCode::UNKNOWN};
}

/// Into kOperationNames.
std::optional<size_t> OperationIndex(Method method) {
  switch (method) {
    case Method::kGenerate:
    case Method::kGenerateUnary:
      return 0;
    case Method::kChat:
      return 1;
    case Method::kTokenize:
    case Method::kDetokenize:
    case Method::kGetModelInfo:
      break;
  }
  return std::nullopt;
}

}  // namespace

CallRecord::CallRecord(Method method, const grpc::ServerContextBase& context,
                       ServerMetrics& metrics)
    : method_(method),
      metrics_(metrics),
      peer_(context.peer()),
      trace_(TraceContextOf(context.client_metadata())) {
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
  if (delta.generated_tokens == 0) return;
  const double first = timings_.first_token;
  first_token_s_ = std::min(first_token_s_.value_or(first), first);
  later_tokens_s_ += timings_.total - first;
  later_tokens_ += delta.generated_tokens - 1;
}

void CallRecord::End(const grpc::Status& status) {
  ASYMSERVE_CHECK(!ended_);
  ended_ = true;
  use_.End(int64_t{ran_ ? prompt_tokens_ : 0} + generated_tokens_);
  metrics_.requests[static_cast<size_t>(method_)][CodeIndex(status)].Add();
  Observe(status);
  Write(status);
  if (rejection_.has_value()) metrics_.refusal_seconds.Observe(elapsed_seconds());
}

void CallRecord::Observe(const grpc::Status& status) const {
  const std::optional<size_t> index = OperationIndex(method_);
  if (!index.has_value()) return;
  OperationMetrics& operation = metrics_.operations[*index];
  operation.request_duration[CodeIndex(status)].Observe(elapsed_seconds());
  if (!status.ok()) return;
  if (first_token_s_.has_value()) operation.time_to_first_token.Observe(*first_token_s_);
  if (later_tokens_ > 0) operation.time_per_output_token.Observe(later_tokens_s_ / later_tokens_);
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
       {"trace_id", trace_.trace_id},
       {"parent_id", trace_.parent_id},
       {"left_out", left_out.value_or(0)}});
}

void CallRecord::Write(const grpc::Status& status) const {
  const std::string_view method = kMethodNames[static_cast<size_t>(method_)];
  const std::string_view code_name = kCodeNames[CodeIndex(status)];
  if (rejection_.has_value()) return WriteRefused(code_name, *rejection_);
  if (finish_ == FinishReason::kNone) {
    Log(LogLevel::kInfo, "request",
        {{"method", method},
         {"id", request_},
         {"code", code_name},
         {"total_s", elapsed_seconds()},
         {"key", key_},
         {"peer", peer_},
         {"trace_id", trace_.trace_id},
         {"parent_id", trace_.parent_id}});
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
       {"peer", peer_},
       {"trace_id", trace_.trace_id},
       {"parent_id", trace_.parent_id}});
}

}  // namespace asymserve
