#include "server/token_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"
#include "server/message_encoder.h"

namespace asymserve {

std::shared_ptr<TokenStream> TokenStream::Create(std::unique_ptr<CallRecord> record,
                                                 grpc::CallbackServerContext& context,
                                                 const ServedModel& model, ServerMetrics& metrics,
                                                 OutputFormat format, int32_t sequences,
                                                 const CallOptions& options) {
  std::shared_ptr<TokenStream> stream(new TokenStream(std::move(record), context, model, metrics,
                                                      std::move(format), sequences, options));
  stream->self_ = stream;
  return stream;
}

TokenStream::TokenStream(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
                         const ServedModel& model, ServerMetrics& metrics, OutputFormat format,
                         int32_t sequences, const CallOptions& options)
    : GenerationCall(std::move(record), context, *model.engine, options.read_time),
      format_(std::move(format)),
      options_(options),
      max_unread_deltas_(int64_t{options.max_unread_deltas} * sequences),
      tokenizer_(*model.tokenizer),
      metrics_(metrics),
      pending_(sequences) {}

bool TokenStream::Take(const Delta& delta) {
  const int32_t index = delta.index;
  ASYMSERVE_CHECK(index >= 0 && index < static_cast<int32_t>(pending_.size()));
  Pending& pending = pending_[index];
  if (pending.deltas == 0) order_.push_back(index);
  AppendDelta(delta, format_, tokenizer_, pending.message);
  ++pending.deltas;
  if (++unread_deltas_ <= max_unread_deltas_) return true;
  CutOff();
  return false;
}

void TokenStream::CutOff() {
  metrics_.slow_readers.Add();
  Fail({grpc::StatusCode::RESOURCE_EXHAUSTED,
        absl::StrCat("the client is behind by more than ", max_unread_deltas_, " messages")});
  // The status travels behind the write that is stuck. A client that does not read at all never
  // gets it; the stream must not stay for ever.
  cut_off_timer_.Start(context(), options_.cut_off_grace);
}

void TokenStream::Pump() {
  if (writing_ || finished_) return;
  if (!failed() && !order_.empty()) {
    WriteOldest();
  } else if (complete()) {
    finished_ = true;
    Finish(End());
  }
}

void TokenStream::WriteOldest() {
  const Pending pending = std::exchange(pending_[order_.front()], {});
  order_.pop_front();
  unread_deltas_ -= pending.deltas;
  EncodeMessage(pending.message, in_flight_);
  writing_ = true;
  StartWrite(&in_flight_);
}

void TokenStream::OnWriteDone(bool /*ok*/) {  // a failed write is followed by OnCancel
  std::lock_guard lock(mutex_);
  writing_ = false;
  Pump();
}

void TokenStream::OnCancel() {
  HandleCancel();
}

void TokenStream::OnDone() {
  const std::shared_ptr<GenerationCall> last = std::move(self_);
  std::lock_guard lock(mutex_);
  cut_off_timer_.Done();
  Done();
}

}  // namespace asymserve
