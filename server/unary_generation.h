#pragma once

#include "server/generation_call.h"

namespace asymserve {

/// The unary side of a GenerationCall: one answer when every sequence has ended.
class UnaryGeneration final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  /// `response` lives until OnDone. gRPC's reference is dropped there, the engine's with the last
  /// delta.
  static std::shared_ptr<UnaryGeneration> Create(std::unique_ptr<CallRecord> record,
                                                 grpc::CallbackServerContext& context,
                                                 const ServedModel& model, OutputFormat format,
                                                 int32_t sequences, grpc::ByteBuffer& response);

  void OnCancel() override;
  void OnDone() override;

 private:
  UnaryGeneration(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
                  const ServedModel& model, OutputFormat format, int32_t sequences,
                  grpc::ByteBuffer& response);
  bool Take(const Delta& delta) override;
  void Pump() override;

  const OutputFormat format_;
  const Tokenizer& tokenizer_;
  grpc::ByteBuffer& response_;
  std::shared_ptr<GenerationCall> self_;
  // Guarded by mutex_.
  v1::GenerateUnaryResponse message_;
  bool finished_ = false;
};

}  // namespace asymserve
