#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/runtime/engine_fixture.h"

// Requests that share what was computed of their prompts: several sequences of one, and one after
// the other.

namespace asymserve::testing {
namespace {

class PromptSharingTest : public EngineTest {};

TEST_F(PromptSharingTest, SeveralSequencesOfOneRequestDifferBySeedAndRepeatWithIt) {
  Start();
  GenerateRequest request = Greedy({5}, 25);
  request.sampling.temperature = 5;
  request.n = 3;
  request.has_seed = true;
  request.sampling.seed = 42;
  const auto first = Submit(request);
  const auto second = Submit(request);
  for (int i = 0; i < 3; ++i) {
    first->WaitForFinal(i);
    second->WaitForFinal(i);
    EXPECT_EQ(first->tokens(i), second->tokens(i));
  }
  EXPECT_NE(first->tokens(0), first->tokens(1));
  EXPECT_NE(first->tokens(1), first->tokens(2));
  ExpectNoPagesUsed();
}

TEST_F(PromptSharingTest, ATenantDoesNotFindWhatAnothersPromptLeftInTheCache) {
  Start();
  GenerateRequest request = Greedy(std::vector<int32_t>(30, 7), 1);
  EXPECT_EQ(Submit(request)->WaitForFinal().cached_tokens, 0);
  request.tenant = "other";
  EXPECT_EQ(Submit(request)->WaitForFinal().cached_tokens, 0);
  request.tenant = "default";
  const int32_t cached = Submit(request)->WaitForFinal().cached_tokens;
  EXPECT_GT(cached, 0);
  // What was found there is not counted as computed.
  EXPECT_EQ(engine_->metrics().prompt_tokens.value(), static_cast<uint64_t>(3 * 30 - cached));
}

TEST_F(PromptSharingTest, SequencesOfOneRequestShareThePagesOfItsPrompt) {
  std::vector<int32_t> prompt(30);  // three chunks of 8, a page of 4, and two tokens
  for (int32_t i = 0; i < 30; ++i) prompt[static_cast<size_t>(i)] = i * 7 % 62;
  GenerateRequest request = Greedy(prompt, 20);
  request.sampling.temperature = 1;
  request.has_seed = true;
  request.sampling.seed = 5;
  std::vector<std::vector<int32_t>> alone;
  for (int i = 0; i < 4; ++i) {
    EngineOptions options = SmallOptions();
    options.prefix_cache = false;
    Start(options);
    GenerateRequest single = request;
    single.sampling.seed += static_cast<uint64_t>(i);
    const auto sink = Submit(single);
    sink->WaitForFinal();
    alone.push_back(sink->tokens());
  }
  Start();
  request.n = 4;
  const auto sink = Submit(request);
  for (int i = 0; i < 4; ++i) {
    const Delta last = sink->WaitForFinal(i);
    EXPECT_EQ(last.finish, FinishReason::kLength);
    EXPECT_EQ(last.cached_tokens, i == 0 ? 0 : 28);
    EXPECT_EQ(sink->tokens(i), alone[static_cast<size_t>(i)]) << i;
  }
  ExpectNoPagesUsed();
}

TEST_F(PromptSharingTest, SequencesOfOneRequestShareItsPromptThoughTheFirstEndsWithItsFirstToken) {
  Start();
  GenerateRequest request = Greedy(std::vector<int32_t>(30, 7), 1);
  request.n = 4;
  const auto sink = Submit(request);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(sink->WaitForFinal(i).cached_tokens, i == 0 ? 0 : 28);
  ExpectNoPagesUsed();
}

TEST_F(PromptSharingTest, OnlyWhatWasComputedOfAPromptIsCounted) {
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start();
  const auto sink = std::make_shared<RecordingSink>();
  const auto id = engine_->Submit(Greedy(std::vector<int32_t>(100, 7), 1), sink);
  ASSERT_TRUE(id.ok());
  gate.WaitUntilHeld();
  engine_->Cancel(*id);
  gate.Open();
  EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kCancelled);
  EXPECT_EQ(engine_->metrics().prompt_tokens.value(), 8u) << "a chunk";
  ExpectNoPagesUsed();
}

TEST_F(PromptSharingTest, SequencesThatWaitForTheirFirstOneEndWithIt) {
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start();
  const auto running = Submit(Greedy({1, 2}, 3));
  gate.WaitUntilHeld();
  GenerateRequest request = Greedy({3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3);
  request.n = 3;
  const auto cancelled = std::make_shared<RecordingSink>(3);
  const auto id = engine_->Submit(request, cancelled);
  ASSERT_TRUE(id.ok());
  engine_->Cancel(*id);
  gate.Open();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(cancelled->WaitForFinal(i).finish, FinishReason::kCancelled);
  }
  running->WaitForFinal();
  model_.before_step = nullptr;
  ExpectNoPagesUsed();
}

TEST_F(PromptSharingTest, AModelErrorEndsSequencesThatWaitForTheirFirstOneOnce) {
  model_.fail = true;
  Start();
  GenerateRequest request = Greedy({1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 5);
  request.n = 8;
  const auto sink = Submit(request);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(sink->WaitForFinal(i).finish, FinishReason::kError);
}

TEST_F(PromptSharingTest, SequencesThatWaitForTheirFirstOneAreCountedAsWaiting) {
  std::vector<int64_t> waiting;  // as each step begins
  model_.before_step = [&] { waiting.push_back(engine_->metrics().waiting.value()); };
  Start();
  GenerateRequest request = Greedy({3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 3);  // two chunks
  request.n = 3;
  const auto sink = Submit(request);
  for (int i = 0; i < 3; ++i) sink->WaitForFinal(i);
  ExpectNoPagesUsed();
  ASSERT_GE(waiting.size(), 3u);
  EXPECT_EQ(waiting[0], 3);
  EXPECT_EQ(waiting[1], 2) << "while the first computes the prompt";
  EXPECT_EQ(waiting[2], 2) << "in the queue";
}

TEST_F(PromptSharingTest,
       MaxQueueMsOfSequencesThatWaitForTheirFirstOneGoesOnWhereThatLeftTheQueue) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  Gate gate;
  model_.before_step = [&] {
    gate.Pass();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  };
  Start(options);
  const auto running = Submit(Greedy({1, 2}, 2));
  gate.WaitUntilHeld();
  GenerateRequest request = Greedy({3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, 1000);
  request.n = 2;
  request.max_queue_ms = 1000;
  auto sink = std::make_shared<RecordingSink>(2);
  const auto id = engine_->Submit(request, sink);
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(id.ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(800));
  const std::chrono::duration<double> held = std::chrono::steady_clock::now() - begin;
  gate.Open();
  const Delta last = sink->WaitForFinal(1);
  EXPECT_EQ(last.finish, FinishReason::kQueueTimeout);
  EXPECT_LT(last.timings.queue, held.count() + 1) << "its time began anew";
  engine_->Cancel(*id);
  sink->WaitForFinal(0);
  ExpectNoPagesUsed();
}

}  // namespace
}  // namespace asymserve::testing
