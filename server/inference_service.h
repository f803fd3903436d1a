#pragma once

#include <atomic>
#include <functional>

#include "asymserve/v1/inference.grpc.pb.h"

#include "server/key_ring.h"
#include "server/open_calls.h"
#include "server/served_model.h"
#include "server/server_metrics.h"
#include "server/token_stream.h"
#include "server/unread_bytes.h"

namespace asymserve {

/// Requests arrive as bytes, so that overload is refused before anything is parsed and so that
/// malformed bytes are answered with the name of the field (request_decoder.h).
using RawInferenceService = v1::Inference::WithRawCallbackMethod_Generate<
    v1::Inference::WithRawCallbackMethod_GenerateUnary<
        v1::Inference::WithRawCallbackMethod_Chat<v1::Inference::WithRawCallbackMethod_Tokenize<
            v1::Inference::WithRawCallbackMethod_Detokenize<
                v1::Inference::WithRawCallbackMethod_GetModelInfo<v1::Inference::Service>>>>>>;

/// asymserve.v1.Inference. Any thread.
class InferenceService final : public RawInferenceService {
 public:
  /// `metrics` and `keys` outlive the service. With `keys` a call needs one of them, whose tenant
  /// and limits are the call's; null: everybody may call, for any tenant. Until StartServing every
  /// call is UNAVAILABLE.
  InferenceService(ServerMetrics& metrics, const CallOptions& options,
                   const KeyRing* keys = nullptr)
      : metrics_(metrics),
        options_(options),
        max_unread_deltas_(options.max_unread_deltas),
        unread_(options.max_unread_bytes),
        keys_(keys) {}

  const KeyRing* keys() const { return keys_; }

  /// `model` outlives the gRPC server.
  void StartServing(const ServedModel& model) { model_.store(&model, std::memory_order_release); }
  /// CallOptions::max_unread_deltas of streams from now on.
  void SetStreamQueue(int32_t messages) {
    max_unread_deltas_.store(messages, std::memory_order_relaxed);
  }
  /// New calls are UNAVAILABLE from now on; the engine is told to refuse as well.
  void StartDrain();

  /// Ends the calls that still run with UNAVAILABLE: the time of the drain is over.
  void CutOff() { calls_.CutOff(); }

  /// Calls that have not ended; those that were accepted not before their status was written.
  int64_t open_calls() const { return metrics_.open_calls.value(); }

  using Context = grpc::CallbackServerContext;
  using Stream = grpc::ServerWriteReactor<grpc::ByteBuffer>;
  Stream* Generate(Context* context, const grpc::ByteBuffer* request) override;
  Stream* Chat(Context* context, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* GenerateUnary(Context* context, const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Tokenize(Context* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(Context* context, const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* GetModelInfo(Context* context, const grpc::ByteBuffer* request,
                                         grpc::ByteBuffer* response) override;

 private:
  /// The model, or why nothing is served now.
  absl::StatusOr<const ServedModel*> Served() const;
  struct Admission {
    const ServedModel* model = nullptr;
    absl::StatusOr<std::string> tenant = std::string();  // an error: of the metadata
  };
  /// Who calls, by the key or by what the client says. UNAUTHENTICATED counts.
  grpc::Status Identify(const Context& context, CallRecord& record, Admission& admission,
                        std::shared_ptr<KeyMeter>& meter) const;
  /// Identify and Served, and OverloadStatus over a limit of the key or, for calls that generate,
  /// when not one more sequence has room. Counts rejections.
  grpc::Status Admit(const Context& context, CallRecord& record, bool generates,
                     Admission& admission) const;
  template <typename Proto>
  Stream* StartStream(Method method, Context& context, const grpc::ByteBuffer& request);
  /// Runs `handler(model, request, response)` now; for methods without generation.
  template <typename Request, typename Response, typename Handler>
  grpc::ServerUnaryReactor* Answer(Method method, Context& context, const grpc::ByteBuffer& request,
                                   grpc::ByteBuffer& response, const Handler& handler);
  grpc::Status Refused(CallRecord& record, const absl::Status& status) const;

  ServerMetrics& metrics_;
  const CallOptions options_;
  std::atomic<int32_t> max_unread_deltas_;
  UnreadBytes unread_;
  const KeyRing* const keys_;
  std::atomic<const ServedModel*> model_{nullptr};
  std::atomic<bool> draining_{false};
  OpenCalls calls_;
};

}  // namespace asymserve
