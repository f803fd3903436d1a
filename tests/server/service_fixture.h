#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "asymserve/v1/inference.grpc.pb.h"

#include "server/drain.h"
#include "server/grpc_server.h"
#include "tests/server/alphabet_model.h"

namespace asymserve::testing {

/// True once `condition` holds; gives up after half a minute.
inline bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 15'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

/// A real gRPC server over loopback with a scripted model.
class ServiceFixture : public ::testing::Test {
 protected:
  ServiceFixture() {
    engine_options_.arena = ArenaCut::Pages(4096);
    engine_options_.scheme.page_tokens = 16;
    engine_options_.scheme.chunk_tokens = 64;
    engine_options_.step_tokens = 256;
  }
  ~ServiceFixture() override {
    model_.Release();
    if (server_ != nullptr) server_->Stop(std::chrono::milliseconds(0));
  }

  /// Change the options before.
  void Start() {
    auto tokenizer = Tokenizer::Create(ToyTokenizerSpec(AlphabetModel::kVocabulary));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    auto chat = ChatTemplate::Parse(tokenizer_->spec().chat_template);
    ASSERT_TRUE(chat.ok()) << chat.status();
    chat_ = std::make_unique<ChatTemplate>(*std::move(chat));
    engine_ = std::make_unique<Engine>(model_, *tokenizer_, engine_options_);
    served_.engine = engine_.get();
    served_.tokenizer = tokenizer_.get();
    served_.chat_template = chat_.get();
    served_.limits = {AlphabetModel::kVocabulary, model_.context_length()};
    served_.name = "alphabet";
    served_.page_tokens = engine_options_.scheme.page_tokens;
    service_ = std::make_unique<InferenceService>(metrics_, stream_options_, keys_.get());
    section_.address = "127.0.0.1:0";
    auto server = GrpcServer::Start(section_, *service_, metrics_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    service_->StartServing(served_);
    server_->SetReady(true);
    grpc::ChannelArguments fixed_window;  // or it grows to what a fast writer can fill: 16 MB
    fixed_window.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    channel_ = grpc::CreateCustomChannel(server_->address(), grpc::InsecureChannelCredentials(),
                                         fixed_window);
    stub_ = v1::Inference::NewStub(channel_);
  }

  static v1::GenerateRequest Request(const std::string& prompt, int32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_prompt(prompt);
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stop()->set_max_tokens(max_tokens);
    return request;
  }

  /// Runs one streamed call to its end.
  grpc::Status Generate(const v1::GenerateRequest& request, std::string& text) {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, request);
    v1::GenerateResponse message;
    while (reader->Read(&message)) text += message.text();
    return reader->Finish();
  }

  uint64_t Ended(Method method, grpc::StatusCode code) const {
    return metrics_.requests[static_cast<size_t>(method)][static_cast<size_t>(code)].value();
  }
  uint64_t Rejected(Rejection reason) const {
    return metrics_.rejections[static_cast<size_t>(reason)].value();
  }
  const EngineMetrics& engine_metrics() const { return engine_->metrics(); }

  EngineOptions engine_options_;
  ServerSection section_;
  CallOptions stream_options_;
  AlphabetModel model_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<ChatTemplate> chat_;
  std::unique_ptr<Engine> engine_;
  ServedModel served_;
  ServerMetrics metrics_;
  std::unique_ptr<KeyRing> keys_;  // null: none is needed
  std::unique_ptr<InferenceService> service_;
  std::unique_ptr<GrpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace asymserve::testing
