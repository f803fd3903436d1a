#pragma once

#include <deque>
#include <vector>

#include "server/call_options.h"
#include "server/generation_call.h"

namespace asymserve {

/// The server-streaming side of a GenerationCall. Invariants: at most one write in flight, exactly
/// one Finish, nothing after Finish. While a write is in flight new deltas of a sequence join into
/// one message; when too many have, of all sequences together, the call ends with
/// RESOURCE_EXHAUSTED.
class TokenStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public GenerationCall {
 public:
  /// gRPC's reference is dropped in OnDone; the engine's with the last delta.
  static std::shared_ptr<TokenStream> Create(std::unique_ptr<CallRecord> record,
                                             grpc::CallbackServerContext& context,
                                             const ServedModel& model, ServerMetrics& metrics,
                                             OutputFormat format, int32_t sequences,
                                             const CallOptions& options);

  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

 private:
  struct Pending {
    v1::GenerateResponse message;  // joined deltas, not yet written
    int32_t deltas = 0;
  };

  TokenStream(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
              const ServedModel& model, ServerMetrics& metrics, OutputFormat format,
              int32_t sequences, const CallOptions& options);
  bool Take(const Delta& delta) override;
  void Pump() override;
  void WriteOldest();
  void CutOff();

  const OutputFormat format_;
  const CallOptions options_;
  const int64_t max_unread_deltas_;  // of all sequences
  const Tokenizer& tokenizer_;
  ServerMetrics& metrics_;
  std::shared_ptr<GenerationCall> self_;
  // Guarded by mutex_.
  std::vector<Pending> pending_;  // [sequence]
  std::deque<int32_t> order_;     // sequences with something pending, oldest first
  int32_t unread_deltas_ = 0;     // in pending_
  grpc::ByteBuffer in_flight_;
  bool writing_ = false;
  bool finished_ = false;
  CallTimer cut_off_timer_;
};

}  // namespace asymserve
