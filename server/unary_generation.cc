#include "server/unary_generation.h"

#include "engine/base/check.h"
#include "server/message_encoder.h"

namespace asymserve {

std::shared_ptr<UnaryGeneration> UnaryGeneration::Create(std::unique_ptr<CallRecord> record,
                                                         grpc::CallbackServerContext& context,
                                                         const ServedModel& model,
                                                         OutputFormat format, int32_t sequences,
                                                         grpc::ByteBuffer& response) {
  std::shared_ptr<UnaryGeneration> call(new UnaryGeneration(
      std::move(record), context, model, std::move(format), sequences, response));
  call->self_ = call;
  return call;
}

UnaryGeneration::UnaryGeneration(std::unique_ptr<CallRecord> record,
                                 grpc::CallbackServerContext& context, const ServedModel& model,
                                 OutputFormat format, int32_t sequences, grpc::ByteBuffer& response)
    : GenerationCall(std::move(record), context, *model.engine),
      format_(std::move(format)),
      tokenizer_(*model.tokenizer),
      response_(response) {
  for (int32_t i = 0; i < sequences; ++i) message_.add_sequences()->set_index(i);
}

bool UnaryGeneration::Take(const Delta& delta) {
  ASYMSERVE_CHECK(delta.index >= 0 && delta.index < message_.sequences_size());
  AppendDelta(delta, format_, tokenizer_, *message_.mutable_sequences(delta.index));
  return true;
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
}

}  // namespace asymserve
