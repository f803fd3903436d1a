#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "tests/engine/runtime/engine_fixture.h"

// What changes while the engine runs.

namespace asymserve::testing {
namespace {

class EngineChangeTest : public EngineTest {
 protected:
  /// One sequence at a time, each step held by the gate.
  void StartHeld(EngineOptions options = SmallOptions()) {
    options.max_running = 1;
    model_.before_step = [this] { gate_.Pass(); };
    Start(options);
    running_ = Submit(Greedy({1, 2, 3}, 2));
    gate_.WaitUntilHeld();
  }
  void Finish() {
    gate_.Open();
    running_->WaitForFinal();
  }
  bool Eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 10'000; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }

  Gate gate_;
  std::shared_ptr<RecordingSink> running_;
};

TEST_F(EngineChangeTest, AShorterQueueRefusesWhatTheLongOneWouldTakeAndKeepsWhoWaits) {
  StartHeld();
  const auto first = Submit(Greedy({4}, 1)), second = Submit(Greedy({5}, 1));
  ASSERT_TRUE(engine_->SetMaxWaiting(1).ok());
  EXPECT_FALSE(engine_->HasRoom(1));
  const auto refused = engine_->Submit(Greedy({6}, 1), std::make_shared<RecordingSink>());
  EXPECT_EQ(refused.status().message(), "the queue is full: 2 sequences wait, 1 may");
  GenerateRequest pair = Greedy({6}, 1);
  pair.n = 2;
  EXPECT_EQ(engine_->Submit(pair, std::make_shared<RecordingSink>(2)).status().message(),
            "n: 2 sequences never fit the queue, which holds 1 (engine.max_waiting)");
  ASSERT_TRUE(engine_->SetMaxWaiting(3).ok());
  const auto third = Submit(Greedy({6}, 1));
  Finish();
  for (const auto& sink : {first, second, third}) {
    EXPECT_EQ(sink->WaitForFinal().finish, FinishReason::kLength);
  }
}

TEST_F(EngineChangeTest, TheQueueGrowsNoLongerThanMemoryWasPlannedFor) {
  Start();
  const absl::Status status = engine_->SetMaxWaiting(65);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(status.message(), "memory was planned for 64 waiting sequences, not 65");
  EXPECT_TRUE(engine_->HasRoom(64));
  EXPECT_FALSE(engine_->HasRoom(65));
}

TEST_F(EngineChangeTest, OtherWeightsOfTenantsCountForTheNextRequests) {
  StartHeld();
  engine_->SetTenantWeights({{"heavy", 3}});
  using Sent = std::pair<const char*, std::shared_ptr<RecordingSink>>;
  std::vector<Sent> sent;
  for (int i = 0; i < 8; ++i) {
    GenerateRequest request = Greedy({1, 2, 3, 4}, 4);
    request.tenant = i < 4 ? "light" : "heavy";
    sent.emplace_back(i < 4 ? "light" : "heavy", Submit(request));
  }
  Finish();
  std::vector<std::pair<double, const char*>> order;
  for (const auto& [tenant, sink] : sent) {
    order.emplace_back(sink->WaitForFinal().timings.queue, tenant);
  }
  std::sort(order.begin(), order.end());
  const auto heavy = std::count_if(order.begin(), order.begin() + 5, [](const auto& one) {
    return std::string(one.second) == "heavy";
  });
  EXPECT_EQ(heavy, 4) << "of the first five";
}

TEST_F(EngineChangeTest, DroppingThePrefixCacheForgetsPromptsAndHarmsNoSequence) {
  Start();
  const GenerateRequest request = Greedy(std::vector<int32_t>(30, 7), 40);
  const std::vector<int32_t> expected = ScriptedModel::Expected(request.prompt, 40);
  Submit(request)->WaitForFinal();
  EXPECT_GT(Submit(request)->WaitForFinal().cached_tokens, 0);
  ASSERT_TRUE(Eventually([&] { return engine_->metrics().slabs_cached.value() > 0; }))
      << "what is kept after the last sequence is not told";
  engine_->DropPrefixCache();
  ASSERT_TRUE(Eventually([&] { return engine_->metrics().slabs_cached.value() == 0; }))
      << "an idle engine does not wake up for it";
  EXPECT_EQ(Submit(request)->WaitForFinal().cached_tokens, 0);
  // Sequences that share pages run on while they are dropped again and again.
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (int i = 0; i < 12; ++i) {
    sinks.push_back(Submit(request));
    engine_->DropPrefixCache();
  }
  for (const auto& sink : sinks) {
    sink->WaitForFinal();
    EXPECT_EQ(sink->tokens(), expected);
  }
  ExpectNoPagesUsed();
}

}  // namespace
}  // namespace asymserve::testing
