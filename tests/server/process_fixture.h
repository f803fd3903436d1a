#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/server/server_process.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve::testing {

/// Starts the real binary on a toy model.
class ProcessFixture : public ::testing::Test {
 protected:
  static constexpr int32_t kContext = 4096;
  static constexpr int32_t kVocabulary = 288;

  ProcessFixture() {
    ToyModel model;
    model.context_length = kContext;
    model.vocabulary = kVocabulary;
    WriteToyGguf(model, model_path_);
  }

  /// A model of about a millisecond a step: 4,000 tokens take seconds. Before Start.
  void UseSlowModel() {
    ToyModel model;
    model.context_length = kContext;
    model.vocabulary = kVocabulary;
    model.layers = 4;
    model.width = 256;
    model.feed_forward_width = 512;
    model.heads = 8;
    model.head_size = 32;
    WriteToyGguf(model, model_path_);
  }

  void Start(const std::vector<std::string>& options = {}) {
    std::vector<std::string> arguments = {"--model", model_path_,
                                          "--set",   "engine.threads=1",
                                          "--set",   "engine.kv_memory_bytes=64MiB"};
    for (const std::string& option : options) {
      arguments.emplace_back("--set");
      arguments.push_back(option);
    }
    server_ = std::make_unique<ServerProcess>(arguments);
    ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
    stub_ = server_->Stub();
  }

  static v1::GenerateRequest Request(const std::string& prompt, int32_t max_tokens) {
    v1::GenerateRequest request;
    request.set_prompt(prompt);
    request.mutable_sampling()->set_seed(1);
    request.mutable_stop()->set_max_tokens(max_tokens);
    request.mutable_stop()->set_ignore_eos(true);
    return request;
  }

  grpc::Status Unary(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, request, &response);
  }

  static bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 3000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  const TempDir directory_;
  const std::string model_path_ = directory_.Path("toy.gguf");
  std::unique_ptr<ServerProcess> server_;
  std::unique_ptr<v1::Inference::Stub> stub_;
};

}  // namespace asymserve::testing
