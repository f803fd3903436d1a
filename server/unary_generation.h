#pragma once

#include "server/call_options.h"
#include "server/generation_call.h"

namespace asymserve {

/// The unary side of a GenerationCall: one answer when every sequence has ended. One of more
/// than max_unary_bytes ends with RESOURCE_EXHAUSTED as soon as it is, for it would wait in memory
/// to its end.
class UnaryGeneration final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  /// `response` lives until OnDone. gRPC's reference is dropped there, the engine's with the last
  /// delta.
  static std::shared_ptr<UnaryGeneration> Create(std::unique_ptr<CallRecord> record,
                                                 grpc::CallbackServerContext& context,
                                                 const ServedModel& model, OutputFormat format,
                                                 int32_t sequences, const CallOptions& options,
                                                 grpc::ByteBuffer& response);

  void OnCancel() override;
  void OnDone() override;

 private:
  UnaryGeneration(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
                  const ServedModel& model, OutputFormat format, int32_t sequences,
                  const CallOptions& options, grpc::ByteBuffer& response);
  bool Take(const Delta& delta) override;
  void Pump() override;

  const int64_t max_bytes_;
  const OutputFormat format_;
  const Tokenizer& tokenizer_;
  grpc::ByteBuffer& response_;
  std::shared_ptr<GenerationCall> self_;
  // Guarded by mutex_.
  v1::GenerateUnaryResponse message_;
  int64_t bytes_ = 0;  // of the deltas in it
  bool finished_ = false;
};

}  // namespace asymserve
