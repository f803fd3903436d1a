// Requests through the engine on the CUDA backend, whose kernels run on tests/simt.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/runtime/engine.h"
#include "engine/runtime/model_loader.h"
#include "tests/engine/backend/cuda/device/toy_server.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceCall;
using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeCuda;
using ::asymserve::testing::OddToy;
using ::asymserve::testing::ToyModel;
using ::asymserve::testing::ToyPrompt;
using ::asymserve::testing::WideHeadToy;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// What a request got.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  FinishReason finish = FinishReason::kNone;
  absl::Status error;
};

class Sink final : public OutputSink {
 public:
  bool Deliver(Delta delta) override {
    std::lock_guard lock(mutex_);
    for (const TokenInfo& token : delta.tokens) {
      answer_.tokens.push_back(token.id);
      answer_.logprobs.push_back(token.logprob);
    }
    answer_.finish = delta.finish;
    answer_.error = delta.error;
    changed_.notify_all();
    return true;
  }
  Answer Wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return answer_.finish != FinishReason::kNone; });
    return answer_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Answer answer_;
};

class CudaEngineTest : public ::testing::Test {
 protected:
  CudaEngineTest() { testing::WriteToyGguf(OddToy(), path_); }

  void TakeWideHeads() { testing::WriteToyGguf(WideHeadToy(), path_); }

  static GenerateRequest Request(int32_t prompt, int32_t generated, uint32_t seed) {
    GenerateRequest request;
    request.prompt = ToyPrompt(prompt, seed, 291);
    request.sampling.temperature = seed % 2 == 0 ? 0.0f : 0.9f;
    request.has_seed = true;
    request.sampling.seed = seed;
    request.stop.max_tokens = generated;
    request.stop.ignore_eos = true;
    request.logprobs = 0;
    return request;
  }
  static std::vector<GenerateRequest> Requests() {
    return {Request(70, 12, 2), Request(5, 9, 3), Request(200, 5, 4), Request(130, 6, 5)};
  }
  /// Of every kind of sampling; what a backend does not draw is among them.
  static std::vector<GenerateRequest> SampledRequests() {
    std::vector<GenerateRequest> requests;
    for (uint32_t seed = 2; seed < 12; ++seed) {
      requests.push_back(Request(static_cast<int32_t>(5 + 7 * seed), 8, seed));
      requests.back().logprobs = seed % 3 == 0 ? 0 : -1;
    }
    requests[0].sampling.frequency_penalty = 1.5f;
    requests[0].sampling.presence_penalty = 0.5f;
    requests[1].sampling.top_p = 0.8f;
    requests[2].sampling.repetition_penalty = 1.4f;
    requests[3].sampling.top_k = 12;
    requests[3].sampling.min_p = 0.05f;
    requests[4].sampling.logit_bias = {{17, 6.0f}, {200, -3.0f}};
    requests[5].sampling.top_k = 40;
    requests[5].sampling.top_p = 0.9f;
    requests[5].sampling.repetition_penalty = 1.2f;
    requests[6].stop.ignore_eos = false;
    requests[6].stop.min_tokens = 6;
    requests[7].sampling.typical_p = 0.7f;  // the host's
    requests[8].logprobs = 4;               // the host's
    requests[9].sampling.min_p = 0.1f;
    requests[9].sampling.presence_penalty = 1;
    return requests;
  }
  void Start(const std::string& scheme, int32_t step_tokens) {
    backend_ = on_cpu_ ? testing::MakeCpu() : MakeCuda(log_, options_);
    LoadOptions options;
    options.path = path_;
    options.kv_scheme = scheme;
    options.kv_memory_bytes = 4 << 20;
    options.max_context_tokens = 512;
    options.max_running = 4;
    options.step_tokens = step_tokens;
    auto loaded = LoadModel(*backend_, options);
    ASSERT_THAT(loaded, IsOk());
    loaded_ = *std::move(loaded);
    engine_ = std::make_unique<Engine>(*loaded_.model, *loaded_.tokenizer, loaded_.engine_options);
  }
  std::shared_ptr<Sink> Submit(const GenerateRequest& request) {
    auto sink = std::make_shared<Sink>();
    EXPECT_THAT(engine_->Submit(request, sink), IsOk());
    return sink;
  }
  std::vector<Answer> Alone(const std::string& scheme,
                            const std::vector<GenerateRequest>& requests) {
    std::vector<Answer> answers;
    Start(scheme, 512);
    for (const GenerateRequest& request : requests) answers.push_back(Submit(request)->Wait());
    Stop();
    return answers;
  }
  void ExpectTogether(const std::string& scheme, const std::vector<GenerateRequest>& requests,
                      const std::vector<Answer>& expected) {
    Start(scheme, 37);
    std::vector<std::shared_ptr<Sink>> sinks;
    for (const GenerateRequest& request : requests) sinks.push_back(Submit(request));
    for (size_t i = 0; i < sinks.size(); ++i) {
      const Answer together = sinks[i]->Wait();
      EXPECT_EQ(together.finish, FinishReason::kLength) << together.error;
      EXPECT_EQ(together.tokens, expected[i].tokens) << "request " << i;
      EXPECT_EQ(together.logprobs, expected[i].logprobs) << "request " << i;
    }
    Stop();
    EXPECT_THAT(log_->misuse, IsEmpty());
    EXPECT_TRUE(log_->empty());
  }
  void Stop() {
    engine_.reset();
    loaded_ = LoadedModel();
    backend_.reset();
  }

  const testing::TempDir directory_;
  const std::string path_ = directory_.Path("toy.gguf");
  const std::shared_ptr<DeviceLog> log_ = std::make_shared<DeviceLog>();
  cuda::CudaOptions options_;
  bool on_cpu_ = false;
  std::unique_ptr<Backend> backend_;
  LoadedModel loaded_;
  std::unique_ptr<Engine> engine_;
};

TEST_F(CudaEngineTest, ARequestGetsTheSameBitsAloneAndInABatch) {
  const std::vector<Answer> alone = Alone("kivi-2", Requests());
  ExpectTogether("kivi-2", Requests(), alone);
}

TEST_F(CudaEngineTest, ARequestGetsTheSameBitsAloneAndInABatchFromFourBitWeights) {
  ToyModel toy = OddToy();
  toy.width = 64;
  toy.dtype = DType::kQ4_1;
  toy.embedding_dtype = DType::kQ4_0;
  testing::WriteToyGguf(toy, path_);
  const std::vector<Answer> alone = Alone("exact", Requests());
  ExpectTogether("exact", Requests(), alone);
}

// Prompts are cut at other places, so that rows share tiles with other rows.
TEST_F(CudaEngineTest, ARequestGetsTheSameBitsAloneAndInABatchFromTensorCores) {
  TakeWideHeads();
  const std::vector<Answer> alone = Alone("int8", Requests());
  ExpectTogether("int8", Requests(), alone);
}

// The neighbours are read by the plain kernel, exact sequences by tensor cores in both arenas.
TEST_F(CudaEngineTest, ExactRequestsGetTheBitsOfAnExactArenaBesideOthers) {
  TakeWideHeads();
  std::vector<GenerateRequest> requests = Requests();
  const std::vector<Answer> exact = Alone("exact", {requests[0], requests[2]});
  std::vector<Answer> expected = Alone("fit-2/1", {requests[1], requests[3]});
  expected = {exact[0], expected[0], exact[1], expected[1]};
  for (const size_t i : {0, 2}) requests[i].kv_precision = KvPrecision::kExact;
  ExpectTogether("fit-2/1", requests, expected);
}

TEST_F(CudaEngineTest, TokensDrawnOnTheDeviceAreThoseOfTheHostAloneAndInABatch) {
  const std::vector<GenerateRequest> requests = SampledRequests();
  const std::vector<Answer> drawn = Alone("kivi-2", requests);
  options_.host_sampling = true;
  const std::vector<Answer> sampled = Alone("kivi-2", requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(drawn[i].tokens, sampled[i].tokens) << "request " << i;
    EXPECT_EQ(drawn[i].tokens.size(), 8u);
    for (size_t t = 0; t < drawn[i].logprobs.size(); ++t) {
      EXPECT_NEAR(drawn[i].logprobs[t], sampled[i].logprobs[t],
                  1e-6 * std::fabs(sampled[i].logprobs[t]));
      EXPECT_EQ(drawn[i].logprobs[t] < 0, requests[i].logprobs >= 0);
    }
  }
  options_.host_sampling = false;
  ExpectTogether("kivi-2", requests, drawn);
}

TEST_F(CudaEngineTest, TokensDrawnOnTheDeviceAreThoseOfTheCpuBackend) {
  const std::vector<GenerateRequest> requests = SampledRequests();
  const std::vector<Answer> device = Alone("exact", requests);
  on_cpu_ = true;
  const std::vector<Answer> cpu = Alone("exact", requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(device[i].tokens, cpu[i].tokens) << "request " << i;
  }
}

TEST_F(CudaEngineTest, OnlyTokensComeToTheHostWhereTheDeviceDraws) {
  constexpr int64_t kLogits = 291 * int64_t{sizeof(float)};
  GenerateRequest request = Request(6, 5, 3);
  Start("exact", 64);
  EXPECT_EQ(Submit(request)->Wait().finish, FinishReason::kLength);
  EXPECT_EQ(log_->to_host, 5 * int64_t{sizeof(DrawnToken)});
  EXPECT_EQ(log_->count(DeviceCall::kSynchronize), log_->count(DeviceCall::kCopyToHost));
  request.logprobs = 2;
  log_->to_host = 0;
  EXPECT_EQ(Submit(request)->Wait().finish, FinishReason::kLength);
  EXPECT_EQ(log_->to_host, 5 * kLogits);
  Stop();
}

TEST_F(CudaEngineTest, TheBackendTakesWhatWasPlanned) {
  Start("fit-2/1", 64);
  const MemoryBytes counted = backend_->CountedMemory();
  const MemoryLedger& ledger = loaded_.memory_plan.ledger;
  EXPECT_EQ(counted[MemoryClass::kWeights], ledger[LedgerRow::kWeights]);
  EXPECT_EQ(counted[MemoryClass::kTables], ledger[LedgerRow::kTables]);
  EXPECT_EQ(counted[MemoryClass::kWorkspace], ledger[LedgerRow::kWorkspace]);
  EXPECT_EQ(counted[MemoryClass::kKv], ledger.kv_bytes());
  Stop();
}

TEST_F(CudaEngineTest, ADeviceErrorEndsTheRequestAndTheEngine) {
  Start("exact", 64);
  EXPECT_EQ(Submit(Request(5, 3, 2))->Wait().finish, FinishReason::kLength);
  log_->failing = DeviceCall::kSynchronize;
  log_->error = cudaErrorLaunchFailure;
  log_->fails_at = log_->count(DeviceCall::kSynchronize) + 4;
  const Answer answer = Submit(Request(5, 30, 2))->Wait();
  EXPECT_EQ(answer.finish, FinishReason::kError);
  EXPECT_EQ(answer.tokens.size(), 4u);
  EXPECT_THAT(std::string(answer.error.message()),
              HasSubstr("cuda: waiting for the device: unspecified launch failure"));
  EXPECT_FALSE(engine_->health().ok());
  EXPECT_THAT(engine_->Submit(Request(5, 3, 2), std::make_shared<Sink>()),
              FailsWith(absl::StatusCode::kUnavailable, ""));
  Stop();
  EXPECT_TRUE(log_->empty());
}

}  // namespace
}  // namespace asymserve
