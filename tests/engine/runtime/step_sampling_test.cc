// The rows of a step, sampled by several threads: whoever takes a row, its token is the same.

#include "engine/runtime/step_sampling.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "engine/base/thread_pool.h"
#include "tests/engine/runtime/scripted_model.h"

namespace asymserve {
namespace {

using ::asymserve::testing::kEos;
using ::asymserve::testing::kVocabulary;
using ::asymserve::testing::LetterTokenizer;

class ThreadedModel final : public Model {
 public:
  explicit ThreadedModel(ThreadPool* threads) : threads_(threads) {}
  int32_t vocabulary() const override { return kVocabulary; }
  int32_t context_length() const override { return 1024; }
  ThreadPool* threads() override { return threads_; }
  absl::StatusOr<TensorView> Forward(const Batch&) override {
    return absl::UnimplementedError("not used");
  }

 private:
  ThreadPool* const threads_;
};

class StepSamplingTest : public ::testing::Test {
 protected:
  Generation& Begin(const GenerateRequest& request) {
    auto active = std::make_shared<ActiveRequest>();
    active->request = request;
    active->request.prompt = {1, 2, 3};
    active->seen = {1, 2, 3};
    const auto id = MakeSequenceId(RequestId{sequences_.size()}, 0);
    sequences_.push_back(std::make_unique<Generation>(id, std::move(active), 0, tokenizer_));
    sequences_.back()->Begin();
    return *sequences_.back();
  }
  TensorView Logits() {
    return MakeMatrix(logits_.data(), static_cast<int64_t>(sequences_.size()), kVocabulary);
  }
  void DrawLogits(unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 3);
    logits_.resize(sequences_.size() * kVocabulary);
    for (float& logit : logits_) logit = normal(random);
  }
  /// Of the row, alone on one thread.
  absl::StatusOr<SampledToken> Alone(size_t row) {
    ThreadedModel model(nullptr);
    StepSampling sampling(model, tokenizer_);
    sampling.Clear();
    sampling.Add(*sequences_[row]);
    sampling.Sample(MakeMatrix(logits_.data() + row * kVocabulary, 1, kVocabulary));
    return sampling.token(0);
  }
  void ExpectEveryRowAsAlone(StepSampling& sampling) {
    sampling.Clear();
    for (const auto& sequence : sequences_) sampling.Add(*sequence);
    sampling.Sample(Logits());
    for (size_t row = 0; row < sequences_.size(); ++row) {
      const absl::StatusOr<SampledToken> alone = Alone(row);
      const absl::StatusOr<SampledToken>& token = sampling.token(row);
      ASSERT_EQ(token.status(), alone.status()) << "row " << row;
      if (!token.ok()) continue;
      EXPECT_EQ(token->id, alone->id) << "row " << row;
      EXPECT_EQ(token->logprob, alone->logprob) << "row " << row;
      ASSERT_EQ(token->top.size(), alone->top.size()) << "row " << row;
      for (size_t i = 0; i < token->top.size(); ++i) {
        EXPECT_EQ(token->top[i].token, alone->top[i].token);
        EXPECT_EQ(token->top[i].logprob, alone->top[i].logprob);
      }
    }
  }

  LetterTokenizer tokenizer_;
  std::vector<std::unique_ptr<Generation>> sequences_;
  std::vector<float> logits_;
};

std::vector<GenerateRequest> OneOfEachKind() {
  std::vector<GenerateRequest> requests(8);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].sampling.seed = 100 + i;
  requests[0].sampling.temperature = 0;
  requests[1].sampling.temperature = 1;
  requests[2].sampling.temperature = 1.2f;
  requests[2].sampling.top_k = 5;
  requests[3].sampling.top_p = 0.9f;
  requests[4].sampling.typical_p = 0.7f;
  requests[5].sampling.repetition_penalty = 1.3f;
  requests[6].sampling.logit_bias = {{4, 5.0f}};
  requests[6].logprobs = 3;
  requests[7].stop.min_tokens = 4;
  requests[7].stop.token_ids = {9, 10};
  return requests;
}

TEST_F(StepSamplingTest, ARowsTokenIsTheSameAloneAndAmongOthersOnAnyNumberOfThreads) {
  for (int copy = 0; copy < 6; ++copy) {
    for (const GenerateRequest& request : OneOfEachKind()) Begin(request);
  }
  for (const int threads : {1, 2, 4, kMaxSamplers + 3}) {
    SCOPED_TRACE(threads);
    ThreadPool pool(threads);
    ThreadedModel model(&pool);
    StepSampling sampling(model, tokenizer_);
    for (unsigned step = 0; step < 20; ++step) {
      DrawLogits(step);
      ASSERT_NO_FATAL_FAILURE(ExpectEveryRowAsAlone(sampling));
    }
  }
}

TEST_F(StepSamplingTest, WhatIsBannedIsBannedForItsOwnRowOnly) {
  GenerateRequest wants_more, may_end;
  wants_more.sampling.temperature = may_end.sampling.temperature = 0;
  wants_more.stop.min_tokens = 1;
  for (int i = 0; i < 32; ++i) Begin(i % 2 == 0 ? wants_more : may_end);
  DrawLogits(1);
  for (size_t row = 0; row < sequences_.size(); ++row) logits_[row * kVocabulary + kEos] = 50;
  ThreadPool pool(4);
  ThreadedModel model(&pool);
  StepSampling sampling(model, tokenizer_);
  for (const auto& sequence : sequences_) sampling.Add(*sequence);
  sampling.Sample(Logits());
  for (size_t row = 0; row < sequences_.size(); ++row) {
    ASSERT_TRUE(sampling.token(row).ok());
    EXPECT_EQ(sampling.token(row)->id == kEos, row % 2 == 1) << "row " << row;
  }
}

TEST_F(StepSamplingTest, LogitsThatAreNaNAreAnErrorOfTheirRowAlone) {
  for (const GenerateRequest& request : OneOfEachKind()) Begin(request);
  ThreadPool pool(2);
  ThreadedModel model(&pool);
  StepSampling sampling(model, tokenizer_);
  DrawLogits(1);
  logits_[3 * kVocabulary + 20] = std::numeric_limits<float>::quiet_NaN();
  ASSERT_NO_FATAL_FAILURE(ExpectEveryRowAsAlone(sampling));
  for (size_t row = 0; row < sequences_.size(); ++row) {
    EXPECT_EQ(sampling.token(row).ok(), row != 3) << "row " << row;
  }
  // And of that step alone.
  DrawLogits(2);
  ASSERT_NO_FATAL_FAILURE(ExpectEveryRowAsAlone(sampling));
  EXPECT_TRUE(sampling.token(3).ok());
}

}  // namespace
}  // namespace asymserve
