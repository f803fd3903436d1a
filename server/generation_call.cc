#include "server/generation_call.h"

#include "server/rpc_status.h"

namespace asymserve {
namespace {

std::chrono::steady_clock::time_point ToSteady(std::chrono::system_clock::time_point time) {
  return std::chrono::steady_clock::now() +
         std::chrono::duration_cast<std::chrono::steady_clock::duration>(
             time - std::chrono::system_clock::now());
}

/// The call's, or the clock's last value when it has none or one that is no limit: clients that
/// mean "for ever" may send so much that clocks of nanoseconds overflow.
std::chrono::system_clock::time_point DeadlineOf(const grpc::CallbackServerContext& context) {
  constexpr std::chrono::hours kForEver(10 * 365 * 24);
  const auto last = std::chrono::system_clock::now() + kForEver;
  const gpr_timespec latest = {.tv_sec = std::chrono::system_clock::to_time_t(last),
                               .tv_nsec = 0,
                               .clock_type = GPR_CLOCK_REALTIME};
  const gpr_timespec deadline = gpr_convert_clock_type(context.raw_deadline(), GPR_CLOCK_REALTIME);
  if (gpr_time_cmp(deadline, latest) > 0) return std::chrono::system_clock::time_point::max();
  return context.deadline();
}

}  // namespace

GenerationCall::GenerationCall(std::unique_ptr<CallRecord> record,
                               grpc::CallbackServerContext& context, Engine& engine,
                               std::chrono::milliseconds read_time)
    : deadline_(DeadlineOf(context)),
      context_(context),
      engine_(engine),
      read_time_(read_time),
      record_(std::move(record)) {}

bool GenerationCall::DeadlinePassed() const {
  if (!has_deadline()) return false;
  // The client's clock runs out before the server's copy of it: the timeout travels rounded up, to
  // two or three digits (gRPC over HTTP/2, grpc-timeout), and the network takes its time.
  const auto slack = std::chrono::milliseconds(50) + (deadline_ - start_) / 50;
  return deadline_ - std::chrono::system_clock::now() < slack;
}

void GenerationCall::Start(GenerateRequest request) {
  const int32_t sequences = request.n;
  {
    std::lock_guard lock(mutex_);
    sequences_left_ = sequences;  // deltas may come before Submit returns
    record_->SetPrecision(request.kv_precision);
  }
  if (has_deadline()) request.deadline = ToSteady(deadline_);
  const absl::StatusOr<RequestId> id = engine_.Submit(std::move(request), shared_from_this());
  std::unique_lock lock(mutex_);
  if (!id.ok()) {
    sequences_left_ = 0;
    CountRejection(id.status());
    Fail(absl::IsResourceExhausted(id.status())
             ? OverloadStatus(std::string(id.status().message()), engine_.RetryAfter())
             : ToGrpcStatus(id.status()));
    Move();
    return;
  }
  request_ = *id;
  record_->SetRequest(*id);
  const bool cancelled = cancelled_;
  lock.unlock();
  if (cancelled) engine_.Cancel(*id);
}

bool GenerationCall::Deliver(Delta delta) {
  std::lock_guard lock(mutex_);
  record_->SetRequest(delta.request);  // it may be the final delta, and Submit not have returned
  if (delta.finish != FinishReason::kNone) AddFinal(delta);
  const bool wanted = !failed_ && Take(delta);
  Move();
  return wanted;
}

void GenerationCall::Move() {
  Pump();
  if (ended_ || !complete()) return;
  ended_ = true;
  unread_timer_.Start(context_, read_time_);
}

void GenerationCall::AddFinal(const Delta& delta) {
  record_->AddFinal(delta);
  --sequences_left_;
  if (failed_) return;
  // The status tells what happened; sequences that go on are still delivered.
  if (delta.finish == FinishReason::kError) {
    status_ = ToGrpcStatus(delta.error);
  } else if (delta.finish == FinishReason::kDeadline) {
    status_ = delta.error.ok() ? grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED,
                                              "the deadline passed during generation")
                               : ToGrpcStatus(delta.error);
  } else if (delta.finish == FinishReason::kQueueTimeout) {
    status_ = {grpc::StatusCode::DEADLINE_EXCEEDED, "max_queue_ms: it passed in the queue"};
  } else if (delta.finish == FinishReason::kCancelled) {
    status_ = {grpc::StatusCode::CANCELLED, "the request was cancelled"};
  }
}

void GenerationCall::CountRejection(const absl::Status& status) {
  Rejection reason = Rejection::kInvalid;
  if (absl::IsResourceExhausted(status)) reason = Rejection::kQueueFull;
  if (absl::IsDeadlineExceeded(status)) reason = Rejection::kDeadline;
  if (absl::IsUnavailable(status)) {
    reason = engine_.health().ok() ? Rejection::kDraining : Rejection::kFailed;
  }
  record_->Reject(reason);
}

void GenerationCall::HandleCancel() {
  Abandon(DeadlinePassed()
              ? grpc::Status(grpc::StatusCode::DEADLINE_EXCEEDED, "the deadline passed")
              : grpc::Status(grpc::StatusCode::CANCELLED, "the client cancelled"));
}

void GenerationCall::EndByServer() {
  Abandon({grpc::StatusCode::UNAVAILABLE,
           "the server ends and its drain is over; send the request to another one"});
}

void GenerationCall::Abandon(const grpc::Status& status) {
  std::unique_lock lock(mutex_);
  cancelled_ = true;
  Fail(status);
  const bool running = request_.has_value() && !complete();
  const RequestId request = request_.value_or(RequestId{});
  Move();
  lock.unlock();
  if (running) engine_.Cancel(request);
}

void GenerationCall::Fail(const grpc::Status& status) {
  if (failed_) return;
  failed_ = true;
  status_ = status;
}

grpc::Status GenerationCall::End() {
  record_->End(status_);
  return status_;
}

}  // namespace asymserve
