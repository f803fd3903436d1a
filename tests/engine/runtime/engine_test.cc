#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "tests/engine/runtime/engine_fixture.h"

namespace asymserve::testing {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

TEST_F(EngineTest, StreamsTheModelsTokensInOrderAndFinishesByLength) {
  Start();
  const auto sink = Submit(Greedy({1, 2, 3}, 20));
  const Delta last = sink->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kLength);
  EXPECT_EQ(last.prompt_tokens, 3);
  EXPECT_EQ(last.generated_tokens, 20);
  const std::vector<int32_t> expected = ScriptedModel::Expected({1, 2, 3}, 20);
  EXPECT_THAT(sink->tokens(), ElementsAreArray(expected));
  EXPECT_EQ(sink->text(), Decode(tokenizer_, expected, true));
  EXPECT_GE(last.timings.total, last.timings.first_token);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, ConcurrentRequestsShareBatchesAndGetTheTextTheyGetAlone) {
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start();
  std::mt19937 random(3);
  std::vector<std::pair<std::vector<int32_t>, std::shared_ptr<RecordingSink>>> requests;
  for (int i = 0; i < 40; ++i) {
    std::vector<int32_t> prompt(1 + random() % 30);
    for (int32_t& token : prompt) token = static_cast<int32_t>(random() % 62);
    requests.emplace_back(prompt, Submit(Greedy(prompt, 1 + static_cast<int32_t>(random() % 30))));
  }
  gate.Open();
  for (auto& [prompt, sink] : requests) {
    const Delta last = sink->WaitForFinal();
    EXPECT_THAT(sink->tokens(),
                ElementsAreArray(ScriptedModel::Expected(prompt, last.generated_tokens)));
  }
  EXPECT_GT(model_.largest_batch, 8);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, PreemptedSequencesGenerateTheSameTokens) {
  EngineOptions options = SmallOptions();
  options.arena = ArenaCut::Pages(14);  // three sequences of 20 tokens do not fit
  options.watermark_pages = 0;
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  sinks.reserve(30);
  for (int32_t i = 0; i < 12; ++i) sinks.push_back(Submit(Greedy({i, i + 1, 7}, 33)));
  gate.Open();
  for (int32_t i = 0; i < 12; ++i) {
    EXPECT_EQ(sinks[static_cast<size_t>(i)]->WaitForFinal().finish, FinishReason::kLength);
    EXPECT_THAT(sinks[static_cast<size_t>(i)]->tokens(),
                ElementsAreArray(ScriptedModel::Expected({i, i + 1, 7}, 33)));
  }
  EXPECT_GT(engine_->metrics().preemptions.value(), 0u);
  EXPECT_GT(engine_->metrics().recomputed_tokens.value(), 0u);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, CancelEndsARunningRequestAndFreesItsPages) {
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  Start();
  auto sink = std::make_shared<RecordingSink>();
  const auto id = engine_->Submit(Greedy({1}, 1000), sink);
  ASSERT_TRUE(id.ok());
  sink->WaitForTokens(3);
  engine_->Cancel(*id);
  EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kCancelled);
  ExpectNoPagesUsed();
  EXPECT_EQ(engine_->metrics().cancel_to_free_seconds.count(), 1u);
  EXPECT_EQ(engine_->metrics().finished_cancelled.value(), 1u);
}

TEST_F(EngineTest, ACancelDuringAStepFreesThePagesBeforeAnotherStep) {
  Gate gate;
  std::atomic<int> steps = 0;
  model_.before_step = [&] {
    ++steps;
    gate.Pass();
  };
  Start();
  auto sink = std::make_shared<RecordingSink>();
  const auto id = engine_->Submit(Greedy({1}, 1000), sink);
  ASSERT_TRUE(id.ok());
  gate.WaitUntilHeld();
  engine_->Cancel(*id);
  gate.Open();
  EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kCancelled);
  ExpectNoPagesUsed();
  EXPECT_EQ(steps, 1);
}

TEST_F(EngineTest, CancelOfAnUnknownOrFinishedRequestDoesNothing) {
  Start();
  auto sink = std::make_shared<RecordingSink>();
  const auto id = engine_->Submit(Greedy({1}, 2), sink);
  ASSERT_TRUE(id.ok());
  sink->WaitForFinal();
  engine_->Cancel(*id);
  engine_->Cancel(static_cast<RequestId>(12345));
  EXPECT_EQ(Submit(Greedy({2}, 2))->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_EQ(engine_->metrics().finished_cancelled.value(), 0u);
}

TEST_F(EngineTest, AReaderThatIsGoneEndsItsOwnRequestOnly) {
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  Start();
  const auto gone = Submit(Greedy({1}, 1000));
  const auto stays = Submit(Greedy({2}, 50));
  gone->WaitForTokens(1);
  gone->Refuse();
  EXPECT_EQ(gone->WaitForFinal().finish, FinishReason::kCancelled);
  EXPECT_EQ(stays->WaitForFinal().finish, FinishReason::kLength);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, ADeadlineEndsARunningRequest) {
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  Start();
  GenerateRequest request = Greedy({1}, 1000);
  request.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  const auto sink = Submit(std::move(request));
  EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kDeadline);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, ADeadlineThatPassesInTheQueueEndsTheRequestWithoutRunningIt) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start(options);
  const auto first = Submit(Greedy({1}, 200));
  gate.WaitUntilHeld();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  GenerateRequest request = Greedy({2}, 10);
  request.deadline = deadline;
  const auto second = Submit(std::move(request));
  std::this_thread::sleep_until(deadline);
  gate.Open();
  const Delta last = second->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kDeadline);
  EXPECT_EQ(last.generated_tokens, 0);
  EXPECT_EQ(first->WaitForFinal().finish, FinishReason::kLength);
}

TEST_F(EngineTest, AnEndTokenEndsTheTextUnlessIgnored) {
  model_.forced = [](int32_t position) { return position == 4 ? kEos : position % 26; };
  Start();
  const auto ends = Submit(Greedy({1, 2}, 30));
  const Delta last = ends->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kEos);
  EXPECT_EQ(last.stop_token, kEos);
  EXPECT_EQ(last.generated_tokens, 4);
  EXPECT_EQ(ends->text(), "bcd");
  GenerateRequest ignoring = Greedy({1, 2}, 6);
  ignoring.stop.ignore_eos = true;
  const auto goes_on = Submit(std::move(ignoring));
  EXPECT_EQ(goes_on->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_EQ(goes_on->text(), "bcdfg");
}

TEST_F(EngineTest, MinTokensHoldsEndTokensBack) {
  model_.forced = [](int32_t) { return kEos; };
  Start();
  GenerateRequest request = Greedy({1, 2}, 30);
  request.stop.min_tokens = 5;
  const Delta last = Submit(std::move(request))->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kEos);
  EXPECT_EQ(last.generated_tokens, 6);
}

TEST_F(EngineTest, AStopStringAcrossTokensEndsTheTextBeforeIt) {
  model_.forced = [](int32_t position) { return position % 26; };
  Start();
  GenerateRequest request = Greedy({1}, 30);  // generates abcdefg...
  request.stop.strings = {"xyz", "def"};
  const auto sink = Submit(request);
  const Delta last = sink->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kStopString);
  EXPECT_EQ(last.stop_index, 1);
  EXPECT_EQ(sink->text(), "abc");
  request.stop.include_stop_string = true;
  const auto including = Submit(request);
  including->WaitForFinal();
  EXPECT_EQ(including->text(), "abcdef");
}

TEST_F(EngineTest, StopStringsAreIgnoredBeforeMinTokens) {
  model_.forced = [](int32_t position) { return position % 3; };
  Start();
  GenerateRequest request = Greedy({1}, 30);  // abcabcabc...
  request.stop.strings = {"c"};
  request.stop.min_tokens = 5;
  const auto sink = Submit(request);
  EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kStopString);
  EXPECT_EQ(sink->text(), "abcab");
}

TEST_F(EngineTest, AStopTokenEndsTheTextAndIsNamed) {
  model_.forced = [](int32_t position) { return position % 26; };
  Start();
  GenerateRequest request = Greedy({1}, 30);
  request.stop.token_ids = {9, 3};
  const auto sink = Submit(request);
  const Delta last = sink->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kStopToken);
  EXPECT_EQ(last.stop_token, 3);
  EXPECT_EQ(sink->text(), "abc");
}

TEST_F(EngineTest, AnUnfinishedCharacterIsReplacedAtTheEnd) {
  model_.forced = [](int32_t position) { return position == 2 ? 62 : 0; };
  Start();
  const auto sink = Submit(Greedy({1}, 3));
  sink->WaitForFinal();
  EXPECT_EQ(sink->text(), "aa\xEF\xBF\xBD");
}

TEST_F(EngineTest, RefusesWhenTheQueueIsFullAndTouchesNothing) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  options.max_waiting = 2;
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start(options);
  const auto running = Submit(Greedy({1}, 5));
  gate.WaitUntilHeld();
  Submit(Greedy({2}, 5));
  EXPECT_TRUE(engine_->HasRoom(1));
  Submit(Greedy({3}, 5));
  EXPECT_FALSE(engine_->HasRoom(1));
  const auto refused = engine_->Submit(Greedy({4}, 5), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_GT(engine_->RetryAfter().count(), 0);
  gate.Open();
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::seconds(20)));
  EXPECT_EQ(engine_->metrics().finished_length.value(), 3u);
}

TEST_F(EngineTest, RefusesADeadlineInThePastAtOnce) {
  Start();
  GenerateRequest request = Greedy({1}, 5);
  request.deadline = std::chrono::steady_clock::now() - std::chrono::seconds(3);
  const auto refused = engine_->Submit(request, std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("deadline: passed 300"));
  EXPECT_TRUE(engine_->HasRoom(SmallOptions().max_waiting));
}

TEST_F(EngineTest, RefusesADeadlineThatTheMeasuredStepTimesCannotMeet) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  Start(options);
  const std::vector<int32_t> prompt(80, 1);  // ten chunks
  Submit(Greedy(prompt, 2))->WaitForFinal();
  const auto running = Submit(Greedy({2}, 500));
  running->WaitForTokens(2);
  GenerateRequest late = Greedy(prompt, 2);
  late.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(20);
  const auto refused = engine_->Submit(late, std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("the first token is estimated in"));
  EXPECT_EQ(engine_->metrics().waiting.value(), 0);
  running->WaitForFinal();
}

TEST_F(EngineTest, ARequestThatWaitedTooLongForItsDeadlineIsNotBegun) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(5)); };
  Start(options);
  Submit(Greedy(std::vector<int32_t>(80, 1), 2))->WaitForFinal();  // ten chunks: it measures
  const auto running = Submit(Greedy({2}, 700));
  running->WaitForTokens(50);  // among so many steps a slow one counts for little
  // 300 tokens are certain, 1,500 ms or more: too much once half of that is left.
  GenerateRequest late = Greedy({3}, 300);
  late.stop.ignore_eos = true;
  late.deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(3000);
  const Delta last = Submit(late)->WaitForFinal();
  EXPECT_LT(std::chrono::steady_clock::now(), *late.deadline);
  EXPECT_EQ(last.finish, FinishReason::kDeadline);
  EXPECT_FALSE(last.ran);
  EXPECT_EQ(last.error.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(last.error.message()), HasSubstr("deadline: it waited until "));
  EXPECT_EQ(engine_->metrics().finished_deadline.value(), 1u);
  running->WaitForFinal();
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, MaxQueueMsEndsARequestThatWaitsButNotOneThatRuns) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start(options);
  GenerateRequest request = Greedy({1}, 100);
  request.max_queue_ms = 500;
  const auto running = Submit(request);
  gate.WaitUntilHeld();
  const auto waiting = Submit(request);
  std::this_thread::sleep_for(std::chrono::milliseconds(550));
  gate.Open();
  const Delta last = waiting->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kQueueTimeout);
  EXPECT_EQ(last.generated_tokens, 0);
  EXPECT_GE(last.timings.queue, 0.5);
  EXPECT_EQ(running->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_EQ(engine_->metrics().finished_queue_timeout.value(), 1u);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, TenantsShareByWeightAndAreCountedByName) {
  EngineOptions options = SmallOptions();
  options.max_running = 1;
  options.tenants = {{"gold", 3}};
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  Start(options);
  std::vector<std::shared_ptr<RecordingSink>> sinks = {Submit(Greedy({1}, 1))};
  gate.WaitUntilHeld();
  std::vector<std::string> tenants;
  for (int i = 0; i < 8; ++i) {
    for (const char* tenant : {"nobody in particular", "gold"}) {
      GenerateRequest request = Greedy({1, 2, 3}, 1);
      request.tenant = tenant;
      sinks.push_back(Submit(request));
      tenants.emplace_back(tenant);
    }
  }
  gate.Open();
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::seconds(20)));
  double others = 0;
  std::vector<double> gold;
  for (size_t i = 0; i < tenants.size(); ++i) {
    const double queue = sinks[i + 1]->WaitForFinal().timings.queue;
    if (tenants[i] == "gold") {
      gold.push_back(queue);
    } else if (i < 6) {
      others = std::max(others, queue);  // of the first three
    }
  }
  // Six of gold go before the third of the other.
  EXPECT_LT(gold[5], others);
  EXPECT_EQ(engine_->metrics().tenants.size(), 3u);
  EXPECT_EQ(engine_->metrics().tenants[0].sequences.value(), 1u);
  EXPECT_EQ(engine_->metrics().tenants[1].name, "gold");
  EXPECT_EQ(engine_->metrics().tenants[1].prompt_tokens.value(), 24u);
  EXPECT_EQ(engine_->metrics().tenants[2].generated_tokens.value(), 8u);
  EXPECT_EQ(engine_->metrics().tenants[2].waiting.value(), 0);
}

TEST_F(EngineTest, RefusesARequestThatCouldNeverHoldItsPages) {
  EngineOptions options = SmallOptions();
  options.arena = ArenaCut::Pages(8);
  Start(options);
  const auto refused = engine_->Submit(Greedy({1, 2}, 40), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("need 11 pages of KV cache, the pool has 8"));
  EXPECT_EQ(Submit(Greedy({1, 2}, 31))->WaitForFinal().finish, FinishReason::kLength);
}

TEST_F(EngineTest, AnExactRequestIsMeasuredByTheRecordsItTakes) {
  EngineOptions options = SmallOptions();
  options.scheme.near = KvCodec::kInt8;
  options.arena = ArenaCut::Pages(8);
  Start(options);
  GenerateRequest request = Greedy({1, 2}, 31);
  request.kv_precision = KvPrecision::kExact;
  const auto refused = engine_->Submit(request, std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("kv_precision: prompt and output need 8 pages of KV cache in 16 bit, the "
                        "pool has 4 of those"));
  request.stop.max_tokens = 15;
  EXPECT_EQ(Submit(request)->WaitForFinal().finish, FinishReason::kLength);
  request.stop.max_tokens = 0;
  EXPECT_EQ(Submit(request)->WaitForFinal().generated_tokens, 15);
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, WithoutMaxTokensTheContextIsTheLimit) {
  EngineOptions options = SmallOptions();
  options.max_context_tokens = 50;
  Start(options);
  const Delta last = Submit(Greedy({1, 2}, 0))->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kLength);
  EXPECT_EQ(last.generated_tokens, 48);
}

TEST_F(EngineTest, DrainRefusesNewWorkAndFinishesTheOld) {
  Start();
  const auto old = Submit(Greedy({1}, 200));
  engine_->StartDrain();
  const auto refused = engine_->Submit(Greedy({2}, 5), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::seconds(20)));
  EXPECT_EQ(old->WaitForFinal().finish, FinishReason::kLength);
}

TEST_F(EngineTest, NaNLogitsFailTheirOwnRequestOnly) {
  model_.nan_after_first_token = 9;
  Start();
  const auto poisoned = Submit(Greedy({9, 1}, 5));
  const auto healthy = Submit(Greedy({8, 1}, 5));
  const Delta last = poisoned->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kError);
  EXPECT_THAT(std::string(last.error.message()), HasSubstr("NaN"));
  EXPECT_EQ(healthy->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_TRUE(engine_->health().ok());
  ExpectNoPagesUsed();
}

TEST_F(EngineTest, AModelErrorIsTerminalAndEndsEveryRequest) {
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  Start();
  const auto a = Submit(Greedy({1}, 1000));
  const auto b = Submit(Greedy({2}, 1000));
  a->WaitForTokens(2);
  model_.fail = true;
  for (const auto& sink : {a, b}) {
    const Delta last = sink->WaitForFinal();
    EXPECT_EQ(last.finish, FinishReason::kError);
    EXPECT_EQ(last.error.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(last.error.message()), HasSubstr("fell off the bus"));
  }
  EXPECT_FALSE(engine_->health().ok());
  const auto refused = engine_->Submit(Greedy({2}, 5), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(EngineTest, AModelErrorInARequestsFirstStepEndsItOnce) {
  model_.fail = true;
  Start();
  EXPECT_EQ(Submit(Greedy({1}, 5))->WaitForFinal().finish, FinishReason::kError);
  engine_.reset();
  EXPECT_EQ(model_.steps, 1);
}

TEST_F(EngineTest, DestructionDeliversAFinalDeltaToEverybody) {
  model_.before_step = [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); };
  Start();
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  sinks.reserve(30);
  for (int32_t i = 0; i < 30; ++i) sinks.push_back(Submit(Greedy({i}, 900)));
  engine_.reset();
  for (const auto& sink : sinks) {
    EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kCancelled);
  }
}

TEST_F(EngineTest, RandomCancelsFromManyThreadsLoseNothing) {
  EngineOptions options = SmallOptions();
  options.arena = ArenaCut::Pages(40);
  options.max_waiting = 1000;
  Start(options);
  std::vector<std::thread> clients;
  std::atomic<int> finals{0};
  for (uint32_t client = 0; client < 8; ++client) {
    clients.emplace_back([&, client] {
      std::mt19937 random(client);
      for (int i = 0; i < 25; ++i) {
        auto sink = std::make_shared<RecordingSink>();
        const auto id = engine_->Submit(Greedy({static_cast<int32_t>(random() % 62), 3},
                                               1 + static_cast<int32_t>(random() % 60)),
                                        sink);
        ASSERT_TRUE(id.ok()) << id.status();
        if (random() % 2 == 0) sink->WaitForTokens(random() % 20);
        if (random() % 2 == 0) engine_->Cancel(*id);
        sink->WaitForFinal();
        ++finals;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(finals, 200);
  EXPECT_TRUE(engine_->WaitIdle(std::chrono::seconds(20)));
  EXPECT_EQ(engine_->metrics().pages_used.value(), 0);
  const EngineMetrics& metrics = engine_->metrics();
  EXPECT_EQ(metrics.finished_length.value() + metrics.finished_cancelled.value(), 200u);
}

}  // namespace
}  // namespace asymserve::testing
