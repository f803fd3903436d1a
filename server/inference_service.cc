#include "server/inference_service.h"

#include <chrono>

#include "engine/base/status.h"
#include "server/authentication.h"
#include "server/call_timer.h"
#include "server/message_encoder.h"
#include "server/request_decoder.h"
#include "server/rpc_status.h"
#include "server/tenant_id.h"
#include "server/unary_generation.h"

namespace asymserve {
namespace {

constexpr std::chrono::milliseconds kUnreadRetry(1000);

/// A stream that was refused before it became a GenerationCall.
class RefusedStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  explicit RefusedStream(const grpc::Status& status) { Finish(status); }
  void OnDone() override { delete this; }
};

/// An answer that was made at once; the call is open until the client's connection has it.
class AnsweredCall final : public grpc::ServerUnaryReactor {
 public:
  AnsweredCall(std::unique_ptr<CallRecord> record, grpc::CallbackServerContext& context,
               std::chrono::milliseconds read_time, UnreadBytes::Share unread,
               const grpc::Status& status)
      : record_(std::move(record)), unread_(std::move(unread)) {
    record_->End(status);
    unread_timer_.Start(context, read_time);
    Finish(status);
  }
  void OnDone() override {
    unread_timer_.Done();
    delete this;
  }

 private:
  const std::unique_ptr<CallRecord> record_;
  const UnreadBytes::Share unread_;
  CallTimer unread_timer_;
};

/// Counts, logs and answers a call that is refused.
grpc::ServerUnaryReactor* FinishUnary(CallRecord& record, grpc::CallbackServerContext& context,
                                      const grpc::Status& status) {
  record.End(status);
  grpc::ServerUnaryReactor* reactor = context.DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

std::string_view View(const grpc::string_ref& text) {
  return {text.data(), text.size()};
}

template <typename Proto>
absl::StatusOr<DecodedRequest> Decode(absl::StatusOr<std::string> tenant,
                                      const grpc::ByteBuffer& bytes, const ServedModel& model) {
  ASYMSERVE_RETURN_IF_ERROR(tenant.status());
  Proto proto;
  ASYMSERVE_RETURN_IF_ERROR(DecodeRequest(bytes, proto));
  ASYMSERVE_ASSIGN_OR_RETURN(DecodedRequest decoded, FromProto(proto, model));
  decoded.request.tenant = *std::move(tenant);
  return decoded;
}

absl::Status TokenizeText(const ServedModel& model, const v1::TokenizeRequest& request,
                          v1::TokenizeResponse& response) {
  EncodeOptions options;
  if (request.has_add_special_tokens()) options.add_special = request.add_special_tokens();
  options.parse_special = request.parse_special_tokens();
  const absl::StatusOr<std::vector<int32_t>> ids = model.tokenizer->Encode(request.text(), options);
  if (!ids.ok()) return Annotate(ids.status(), "text");
  response.mutable_token_ids()->Add(ids->begin(), ids->end());
  return absl::OkStatus();
}

absl::Status CheckIds(const ServedModel& model, const v1::DetokenizeRequest& request,
                      int64_t max_bytes) {
  int64_t bytes = 0;
  for (int i = 0; i < request.token_ids_size(); ++i) {
    const int32_t id = request.token_ids(i);
    if (id < 0 || id >= model.tokenizer->vocabulary()) {
      return absl::InvalidArgumentError(absl::StrCat("token_ids[", i, "]: ", id, " is not in [0, ",
                                                     model.tokenizer->vocabulary(), ")"));
    }
    bytes += std::ssize(model.tokenizer->TokenBytes(id));
    if (bytes <= max_bytes) continue;
    return absl::ResourceExhaustedError(absl::StrCat("token_ids: the text of the first ", i + 1,
                                                     " is over ", max_bytes,
                                                     " bytes; send fewer at a time"));
  }
  return absl::OkStatus();
}

absl::Status DetokenizeIds(const ServedModel& model, const v1::DetokenizeRequest& request,
                           int64_t max_bytes, v1::DetokenizeResponse& response) {
  ASYMSERVE_RETURN_IF_ERROR(CheckIds(model, request, max_bytes));
  const std::vector<int32_t> ids(request.token_ids().begin(), request.token_ids().end());
  const bool skip = !request.has_skip_special_tokens() || request.skip_special_tokens();
  response.set_text(Decode(*model.tokenizer, ids, skip));
  return absl::OkStatus();
}

absl::Status DescribeModel(const ServedModel& model, const v1::GetModelInfoRequest& /*request*/,
                           v1::GetModelInfoResponse& response) {
  FillModelInfo(model, response);
  return absl::OkStatus();
}

}  // namespace

void InferenceService::StartDrain() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  metrics_.drain_start_us.Set(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
  draining_.store(true, std::memory_order_release);
  const ServedModel* model = model_.load(std::memory_order_acquire);
  if (model != nullptr) model->engine->StartDrain();
}

absl::StatusOr<const ServedModel*> InferenceService::Served() const {
  if (draining_.load(std::memory_order_acquire)) {
    return absl::UnavailableError("the server is draining; send the request to another one");
  }
  const ServedModel* model = model_.load(std::memory_order_acquire);
  if (model == nullptr) return absl::UnavailableError("the model is still loading");
  return model;
}

grpc::Status InferenceService::Identify(const Context& context, CallRecord& record,
                                        Admission& admission,
                                        std::shared_ptr<KeyMeter>& meter) const {
  if (keys_ == nullptr) {
    admission.tenant = TenantIdOf(context.client_metadata());
    return grpc::Status::OK;
  }
  PresentedKey presented;
  for (const auto& [name, value] : context.client_metadata()) {
    presented.Add(View(name), View(value));
  }
  const Authentication who = Authenticate(*keys_, presented);
  if (who.holder == nullptr) {
    record.Reject(who.reason);
    return {grpc::StatusCode::UNAUTHENTICATED, who.message};
  }
  record.SetKey(who.holder->name);
  admission.tenant = who.holder->tenant;
  meter = who.holder->meter;
  return grpc::Status::OK;
}

grpc::Status InferenceService::Admit(const Context& context, CallRecord& record, bool generates,
                                     Admission& admission) const {
  std::shared_ptr<KeyMeter> meter;
  if (grpc::Status status = Identify(context, record, admission, meter); !status.ok()) {
    return status;
  }
  const absl::StatusOr<const ServedModel*> served = Served();
  if (!served.ok()) return Refused(record, served.status());
  admission.model = *served;
  if (meter != nullptr) {
    const auto exceeded = meter->Enter(generates, std::chrono::steady_clock::now());
    if (exceeded) {
      record.Reject(exceeded->reason);
      return OverloadStatus(exceeded->message, exceeded->retry_after);
    }
    record.SetUse(KeyUse(std::move(meter)));
  }
  if (!generates || !admission.tenant.ok()) return grpc::Status::OK;  // Decode says of the tenant
  Engine& engine = *admission.model->engine;
  const absl::Status room = engine.CheckRoom(*admission.tenant);
  if (room.ok()) return grpc::Status::OK;
  record.Reject(Rejection::kQueueFull);
  return OverloadStatus(std::string(room.message()), engine.RetryAfter());
}

grpc::Status InferenceService::Refused(CallRecord& record, const absl::Status& status) const {
  Rejection reason = Rejection::kInvalid;
  if (absl::IsUnavailable(status)) {
    reason = draining_.load(std::memory_order_acquire) ? Rejection::kDraining : Rejection::kLoading;
  }
  record.Reject(reason);
  return ToGrpcStatus(status);
}

template <typename Proto>
InferenceService::Stream* InferenceService::StartStream(Method method, Context& context,
                                                        const grpc::ByteBuffer& request) {
  auto record = std::make_unique<CallRecord>(method, context, metrics_);
  const auto refuse = [&](const grpc::Status& status) {
    record->End(status);
    return new RefusedStream(status);
  };
  Admission admission;
  const grpc::Status admitted = Admit(context, *record, true, admission);
  if (!admitted.ok()) return refuse(admitted);
  const ServedModel& model = *admission.model;
  absl::StatusOr<DecodedRequest> decoded =
      Decode<Proto>(std::move(admission.tenant), request, model);
  if (!decoded.ok()) return refuse(Refused(*record, decoded.status()));
  CallOptions options = options_;
  options.max_unread_deltas = max_unread_deltas_.load(std::memory_order_relaxed);
  const std::shared_ptr<TokenStream> stream =
      TokenStream::Create(std::move(record), context, model, metrics_, std::move(decoded->format),
                          decoded->request.n, options);
  calls_.Add(stream);
  stream->Start(std::move(decoded->request));
  return stream.get();
}

InferenceService::Stream* InferenceService::Generate(Context* context,
                                                     const grpc::ByteBuffer* request) {
  return StartStream<v1::GenerateRequest>(Method::kGenerate, *context, *request);
}

InferenceService::Stream* InferenceService::Chat(Context* context,
                                                 const grpc::ByteBuffer* request) {
  return StartStream<v1::ChatRequest>(Method::kChat, *context, *request);
}

grpc::ServerUnaryReactor* InferenceService::GenerateUnary(Context* context,
                                                          const grpc::ByteBuffer* request,
                                                          grpc::ByteBuffer* response) {
  auto record = std::make_unique<CallRecord>(Method::kGenerateUnary, *context, metrics_);
  Admission admission;
  const grpc::Status admitted = Admit(*context, *record, true, admission);
  if (!admitted.ok()) return FinishUnary(*record, *context, admitted);
  const ServedModel& model = *admission.model;
  absl::StatusOr<DecodedRequest> decoded =
      Decode<v1::GenerateRequest>(std::move(admission.tenant), *request, model);
  if (!decoded.ok()) return FinishUnary(*record, *context, Refused(*record, decoded.status()));
  const std::shared_ptr<UnaryGeneration> call =
      UnaryGeneration::Create(std::move(record), *context, model, std::move(decoded->format),
                              decoded->request.n, options_, *response);
  calls_.Add(call);
  call->Start(std::move(decoded->request));
  return call.get();
}

template <typename Request, typename Response, typename Handler>
grpc::ServerUnaryReactor* InferenceService::Answer(Method method, Context& context,
                                                   const grpc::ByteBuffer& request,
                                                   grpc::ByteBuffer& response,
                                                   const Handler& handler) {
  auto record = std::make_unique<CallRecord>(method, context, metrics_);
  Admission admission;
  const grpc::Status admitted = Admit(context, *record, false, admission);
  if (!admitted.ok()) return FinishUnary(*record, context, admitted);
  Response message;
  const absl::Status status = [&]() -> absl::Status {
    Request decoded;
    ASYMSERVE_RETURN_IF_ERROR(DecodeRequest(request, decoded));
    ASYMSERVE_RETURN_IF_ERROR(handler(*admission.model, decoded, message));
    if (static_cast<int64_t>(message.ByteSizeLong()) <= options_.max_unary_bytes) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError(absl::StrCat(
        "the answer would have ", message.ByteSizeLong(), " bytes; send less at a time"));
  }();
  if (!status.ok()) {
    const grpc::Status refused = Refused(*record, status);
    return new AnsweredCall(std::move(record), context, options_.read_time, nullptr, refused);
  }
  UnreadBytes::Share unread = unread_.Take(static_cast<int64_t>(message.ByteSizeLong()));
  if (unread == nullptr) {
    record->Reject(Rejection::kUnread);
    return new AnsweredCall(
        std::move(record), context, options_.read_time, nullptr,
        OverloadStatus("too much that was answered is not read yet", kUnreadRetry));
  }
  EncodeMessage(message, response);
  return new AnsweredCall(std::move(record), context, options_.read_time, std::move(unread),
                          grpc::Status::OK);
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(Context* context,
                                                     const grpc::ByteBuffer* request,
                                                     grpc::ByteBuffer* response) {
  return Answer<v1::TokenizeRequest, v1::TokenizeResponse>(Method::kTokenize, *context, *request,
                                                           *response, TokenizeText);
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(Context* context,
                                                       const grpc::ByteBuffer* request,
                                                       grpc::ByteBuffer* response) {
  const auto detokenize = [this](const ServedModel& model, const v1::DetokenizeRequest& ids,
                                 v1::DetokenizeResponse& text) {
    return DetokenizeIds(model, ids, options_.max_unary_bytes, text);
  };
  return Answer<v1::DetokenizeRequest, v1::DetokenizeResponse>(Method::kDetokenize, *context,
                                                               *request, *response, detokenize);
}

grpc::ServerUnaryReactor* InferenceService::GetModelInfo(Context* context,
                                                         const grpc::ByteBuffer* request,
                                                         grpc::ByteBuffer* response) {
  return Answer<v1::GetModelInfoRequest, v1::GetModelInfoResponse>(
      Method::kGetModelInfo, *context, *request, *response, DescribeModel);
}

}  // namespace asymserve
