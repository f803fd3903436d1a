#include "server/unary_generation.h"

#include <iterator>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"
#include "server/message_encoder.h"

namespace asymserve {

std::shared_ptr<UnaryGeneration> UnaryGeneration::Create(std::unique_ptr<CallRecord> record,
                                                         grpc::CallbackServerContext& context,
                                                         const ServedModel& model,
                                                         OutputFormat format, int32_t sequences,
                                                         const CallOptions& options,
                                                         grpc::ByteBuffer& response) {
  std::shared_ptr<UnaryGeneration> call(new UnaryGeneration(
      std::move(record), context, model, std::move(format), sequences, options, response));
  call->self_ = call;
  return call;
}

UnaryGeneration::UnaryGeneration(std::unique_ptr<CallRecord> record,
                                 grpc::CallbackServerContext& context, const ServedModel& model,
                                 OutputFormat format, int32_t sequences, const CallOptions& options,
                                 grpc::ByteBuffer& response)
    : GenerationCall(std::move(record), context, *model.engine, options.read_time),
      max_bytes_(options.max_unary_bytes),
      format_(std::move(format)),
      tokenizer_(*model.tokenizer),
      response_(response) {
  for (int32_t i = 0; i < sequences; ++i) message_.add_sequences()->set_index(i);
}

bool UnaryGeneration::Take(const Delta& delta) {
  ASYMSERVE_CHECK(delta.index >= 0 && delta.index < message_.sequences_size());
  v1::GenerateResponse& sequence = *message_.mutable_sequences(delta.index);
  const int before = sequence.tokens_size();
  AppendDelta(delta, format_, tokenizer_, sequence);
  bytes_ += std::ssize(delta.text);
  for (int i = before; i < sequence.tokens_size(); ++i) {
    bytes_ += static_cast<int64_t>(sequence.tokens(i).ByteSizeLong());
  }
  if (bytes_ <= max_bytes_) return true;
  Fail({grpc::StatusCode::RESOURCE_EXHAUSTED,
        absl::StrCat("the answer takes more than ", max_bytes_, " bytes: ask for fewer tokens, ",
                     "sequences or logprobs, or use Generate, which streams")});
  message_.Clear();
  return false;
}

void UnaryGeneration::Pump() {
  if (finished_ || !complete()) return;
  finished_ = true;
  const grpc::Status status = End();
  if (status.ok()) EncodeMessage(message_, response_);
  Finish(status);
}

void UnaryGeneration::OnCancel() {
  HandleCancel();
}

void UnaryGeneration::OnDone() {
  const std::shared_ptr<GenerationCall> last = std::move(self_);
  std::lock_guard lock(mutex_);
  Done();
}

}  // namespace asymserve
