#include "engine/runtime/canary.h"

#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <thread>
#include <utility>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/quality/quality_metrics.h"
#include "engine/runtime/model_loader.h"
#include "tests/engine/runtime/engine_fixture.h"

namespace asymserve::testing {
namespace {

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 30'000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

/// A canary by itself, of a scheme that keeps int8 pages.
class CanaryTest : public ::testing::Test {
 protected:
  static CanaryOptions Options(double rate) {
    CanaryOptions options;
    options.rate = rate;
    options.scheme.page_tokens = kPageTokens;
    options.scheme.chunk_tokens = 8;
    options.scheme.near = KvCodec::kInt8;
    options.arena = ArenaCut::Pages(100);
    options.step_tokens = 64;
    options.max_rows = 16;
    return options;
  }
  /// One of 9 prompt tokens and 5 generated ones.
  Generation Ended(FinishReason reason, KvPrecision precision = KvPrecision::kScheme) const {
    auto request = std::make_shared<ActiveRequest>();
    request->request.prompt.assign(9, 1);
    request->request.kv_precision = precision;
    Generation generation(SequenceId{16}, std::move(request), 0, tokenizer_);
    generation.Begin();
    generation.tokens.insert(generation.tokens.end(), 5, 2);
    generation.finish = reason;
    return generation;
  }
  static StepPlan PlanOf(const StepItem& item) {
    StepPlan plan;
    plan.items.push_back(item);
    plan.tokens = item.count;
    return plan;
  }
  bool Join(Canary& canary, const StepPlan& plan, int32_t waiting = 0,
            int32_t catch_up = INT32_MAX) {
    batch_.Clear();
    return canary.Join(plan, waiting, catch_up, arena_, batch_);
  }

  LetterTokenizer tokenizer_;
  RecordPool arena_{ArenaCut::Pages(100)};
  CanaryMetrics metrics_;
  BatchArrays batch_;
  const StepItem decode_ = {
      .begin = 3, .count = 1, .role = StepItem::Role::kDecode, .sample = true, .pages = {}};
};

TEST_F(CanaryTest, ChoosesItsShareOfTheRequestsAndAlwaysTheSameOnes) {
  const Canary canary(Options(0.25), metrics_);
  for (const uint64_t seed : {uint64_t{0}, uint64_t{7}, UINT64_MAX}) {
    int chosen = 0;
    for (uint64_t id = 1; id <= 4000; ++id) {
      const bool chooses = canary.Chooses(RequestId{id}, seed);
      EXPECT_EQ(chooses, canary.Chooses(RequestId{id}, seed));
      chosen += chooses ? 1 : 0;
    }
    EXPECT_GT(chosen, 900) << "of requests with the seed " << seed;
    EXPECT_LT(chosen, 1100) << "of requests with the seed " << seed;
  }
  const Canary none(Options(0), metrics_), all(Options(1), metrics_);
  for (uint64_t id = 1; id <= 1000; ++id) {
    EXPECT_FALSE(none.Chooses(RequestId{id}, id));
    EXPECT_TRUE(all.Chooses(RequestId{id}, id));
  }
}

TEST_F(CanaryTest, IsOffWithAnExactCacheAndWithoutRoomForTwoSequences) {
  CanaryOptions options = Options(1);
  EXPECT_EQ(CanaryRate(options), 1);
  options.max_rows = 1;
  EXPECT_EQ(CanaryRate(options), 0);
  options = Options(1);
  options.scheme.near = KvCodec::kHalf;
  EXPECT_EQ(CanaryRate(options), 0);
  options.scheme.items = {KvItem{}};
  EXPECT_EQ(CanaryRate(options), 1);
}

TEST_F(CanaryTest, AnotherRateChoosesFromThenOnAndAnExactCacheStaysWithout) {
  Canary canary(Options(0), metrics_);
  EXPECT_FALSE(canary.Chooses(RequestId{1}, 1));
  canary.SetRate(1);
  EXPECT_EQ(canary.rate(), 1);
  EXPECT_TRUE(canary.Chooses(RequestId{1}, 1));
  canary.SetRate(0);
  EXPECT_FALSE(canary.Chooses(RequestId{1}, 1));
  CanaryOptions options = Options(1);
  options.scheme.near = KvCodec::kHalf;
  Canary exact(options, metrics_);
  exact.SetRate(1);
  EXPECT_EQ(exact.rate(), 0);
}

TEST_F(CanaryTest, ComparesOnlySequencesThatCameToTheirEndInTheSchemesPrecision) {
  Canary canary(Options(1), metrics_);
  for (const FinishReason reason : {FinishReason::kCancelled, FinishReason::kDeadline,
                                    FinishReason::kQueueTimeout, FinishReason::kError}) {
    Generation generation = Ended(reason);
    canary.OnEnd(generation, arena_);
  }
  EXPECT_EQ(metrics_.incomplete.value(), 4u);
  Generation degraded = Ended(FinishReason::kEos);
  degraded.degraded_from = 4;
  canary.OnEnd(degraded, arena_);
  EXPECT_EQ(metrics_.degraded.value(), 1u);
  Generation exact = Ended(FinishReason::kLength, KvPrecision::kExact);
  canary.OnEnd(exact, arena_);
  EXPECT_FALSE(canary.active());
  for (const FinishReason reason : {FinishReason::kEos, FinishReason::kStopString,
                                    FinishReason::kStopToken, FinishReason::kLength}) {
    Generation generation = Ended(reason);
    canary.OnEnd(generation, arena_);
    EXPECT_TRUE(canary.active());
    canary.Stop();
  }
  EXPECT_EQ(metrics_.stopped.value(), 4u);
  EXPECT_EQ(metrics_.incomplete.value(), 4u);
}

TEST_F(CanaryTest, TakesPartOnlyInStepsThatNobodyElseHasAUseFor) {
  Canary canary(Options(1), metrics_);
  Generation generation = Ended(FinishReason::kEos);
  canary.OnEnd(generation, arena_);
  const StepPlan decode = PlanOf(decode_);
  StepItem other = decode_;
  other.sample = false;
  EXPECT_FALSE(Join(canary, PlanOf(other))) << "beside a replay";
  other.role = StepItem::Role::kPrefill;
  other.sample = true;
  EXPECT_FALSE(Join(canary, PlanOf(other))) << "beside a prompt";
  EXPECT_FALSE(Join(canary, decode, /*waiting=*/1));
  EXPECT_FALSE(Join(canary, decode, 0, /*catch_up=*/1)) << "no time for two tokens";
  StepPlan full = decode;
  full.tokens = 63;
  EXPECT_FALSE(Join(canary, full)) << "no budget for two tokens";
  ASSERT_TRUE(canary.active());

  ASSERT_TRUE(Join(canary, decode, 0, 10));
  EXPECT_EQ(batch_.batch().tokens.size(), 10u);
  ASSERT_TRUE(Join(canary, StepPlan()));
  EXPECT_EQ(batch_.batch().tokens.size(), 6u) << "to the end of the chunk";
  EXPECT_EQ(batch_.batch().logit_rows.size(), 0u);
  ASSERT_TRUE(Join(canary, StepPlan()));
  EXPECT_EQ(batch_.batch().logit_rows.size(), 2u) << "of the last token of the prompt";
}

TEST_F(CanaryTest, GivesUpAfterManyStepsWithoutAShare) {
  Canary canary(Options(1), metrics_);
  Generation generation = Ended(FinishReason::kEos);
  canary.OnEnd(generation, arena_);
  const StepPlan decode = PlanOf(decode_);
  for (int i = 0; i < Canary::kMaxPause; ++i) ASSERT_FALSE(Join(canary, decode, 1));
  EXPECT_TRUE(canary.active());
  EXPECT_FALSE(Join(canary, decode, 1));
  EXPECT_FALSE(canary.active());
  EXPECT_EQ(metrics_.steps_wanted.value(), 1u);
}

/// With a model whose logits are a function of what the pages hold: what is compared is equal only
/// if both sequences find in their pages what they wrote.
class CanaryEngineTest : public EngineTest {
 protected:
  static EngineOptions CanaryEngine(int32_t slabs = 256) {
    EngineOptions options = SmallOptions();
    options.scheme.near = KvCodec::kInt8;
    options.arena = ArenaCut::Pages(slabs);
    options.watermark_pages = 0;
    options.canary_rate = 1;
    return options;
  }
  const CanaryMetrics& canary() const { return engine_->metrics().canary; }
};

TEST_F(CanaryEngineTest, ComparesEveryGeneratedTokenOnceTheRequestHasEnded) {
  Start(CanaryEngine());
  EXPECT_EQ(engine_->canary_rate(), 1);
  const auto sink = Submit(Greedy({0, 1, 2, 3, 4}, 17));
  sink->WaitForFinal();
  EXPECT_EQ(sink->tokens(), ScriptedModel::Expected({0, 1, 2, 3, 4}, 17));
  ASSERT_TRUE(Eventually([&] { return canary().finished.value() == 1; }));
  EXPECT_EQ(canary().kl.count(), 17u);
  EXPECT_NEAR(canary().kl.sum(), 0, 1e-4);
  EXPECT_EQ(canary().same_top.value(), 17u);
  EXPECT_EQ(canary().other_top.value(), 0u);
  ExpectNoPagesUsed();
}

TEST_F(CanaryEngineTest, OneOfSeveralOutputsIsComparedAndTheTextsAreThoseWithoutACanary) {
  GenerateRequest request = Greedy({9, 8, 7}, 10);
  request.n = 3;
  request.sampling.temperature = 1;
  request.sampling.seed = 5;
  request.has_seed = true;
  std::vector<std::string> texts;
  for (const double rate : {0.0, 1.0}) {
    EngineOptions options = CanaryEngine();
    options.canary_rate = rate;
    Start(options);
    const auto sink = Submit(request);
    for (int i = 0; i < 3; ++i) {
      sink->WaitForFinal(i);
      texts.push_back(sink->text(i));
    }
    const uint64_t compared = rate > 0 ? 1 : 0;
    EXPECT_TRUE(Eventually([&] { return canary().finished.value() == compared; }));
    EXPECT_EQ(canary().kl.count(), 10 * compared);
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(texts[i], texts[i + 3]);
}

TEST_F(CanaryEngineTest, IsGivenUpForWhoeverNeedsItsMemory) {
  Start(CanaryEngine(/*slabs=*/20));
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  const auto small = Submit(Greedy({1, 2, 3, 4, 5, 6, 7, 8}, 8));
  gate.WaitUntilHeld();
  // Finds room only once the first has ended, and then needs more than the canary leaves.
  const auto large = Submit(Greedy(std::vector<int32_t>(68, 3), 8));
  gate.Open();
  EXPECT_EQ(small->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_EQ(large->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_EQ(large->tokens(), ScriptedModel::Expected(std::vector<int32_t>(68, 3), 8));
  ASSERT_TRUE(Eventually([&] { return canary().no_memory.value() == 1; })) << "three times its own";
  EXPECT_EQ(canary().memory_wanted.value(), 1u);
  EXPECT_EQ(engine_->metrics().preemptions.value(), 0u);
  ExpectNoPagesUsed();
  engine_.reset();  // its canary may still pass the gate
}

TEST_F(CanaryEngineTest, ComparesOneRequestAtATime) {
  Start(CanaryEngine());
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  const auto first = Submit(Greedy({1, 2, 3, 4, 5, 6}, 9));
  gate.WaitUntilHeld();
  const auto second = Submit(Greedy({6, 5, 4, 3, 2, 1}, 9));  // ends a step later
  gate.Open();
  first->WaitForFinal();
  second->WaitForFinal();
  ASSERT_TRUE(Eventually([&] { return canary().finished.value() == 1; }));
  EXPECT_EQ(canary().busy.value(), 1u);
  EXPECT_EQ(canary().kl.count(), 9u);
  engine_.reset();  // its canary may still pass the gate
}

TEST_F(CanaryEngineTest, GivesUpARequestWhoseLogitsAreNotFiniteAndComparesTheNext) {
  Start(CanaryEngine());
  model_.before_step = [&] {
    if (model_.steps >= 5) model_.nan_after_first_token = 1;  // behind the prompt and four tokens
  };
  EXPECT_EQ(Submit(Greedy({1, 2, 3}, 5))->WaitForFinal().finish, FinishReason::kLength);
  ASSERT_TRUE(Eventually([&] { return canary().failed.value() == 1; }));
  EXPECT_EQ(canary().kl.count(), 0u);
  EXPECT_TRUE(engine_->health().ok());
  EXPECT_EQ(Submit(Greedy({2, 3, 4}, 5))->WaitForFinal().finish, FinishReason::kLength);
  ASSERT_TRUE(Eventually([&] { return canary().finished.value() == 1; }));
  EXPECT_EQ(canary().kl.count(), 5u);
  EXPECT_EQ(canary().failed.value(), 1u);
  ExpectNoPagesUsed();
}

TEST_F(CanaryEngineTest, EndsWithTheEngine) {
  Start(CanaryEngine());
  model_.before_step = [&] { model_.fail = model_.steps >= 5; };  // the prompt and four tokens
  EXPECT_EQ(Submit(Greedy({1, 2, 3}, 5))->WaitForFinal().finish, FinishReason::kLength);
  ASSERT_TRUE(Eventually([&] { return canary().stopped.value() == 1; }));
  EXPECT_FALSE(engine_->health().ok());
}

/// Keeps the logits of every step.
class RecordingModel final : public Model {
 public:
  using Rows = std::vector<std::vector<float>>;

  explicit RecordingModel(Model& model) : model_(model) {}
  int32_t vocabulary() const override { return model_.vocabulary(); }
  int32_t context_length() const override { return model_.context_length(); }
  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    absl::StatusOr<TensorView> logits = model_.Forward(batch);
    if (!logits.ok()) return logits;
    Rows rows;
    for (int64_t row = 0; row < std::ssize(batch.logit_rows); ++row) {
      const float* begin = logits->Row<float>(row);
      rows.emplace_back(begin, begin + vocabulary());
    }
    std::lock_guard lock(mutex_);
    steps_.push_back(std::move(rows));
    return logits;
  }

  /// The rows of logits of every step since the last call.
  std::vector<Rows> TakeSteps() {
    std::lock_guard lock(mutex_);
    return std::exchange(steps_, {});
  }

 private:
  Model& model_;
  std::mutex mutex_;
  std::vector<Rows> steps_;  // guarded by mutex_
};

class CanaryRowsTest : public ::testing::TestWithParam<const char*> {
 protected:
  /// A real model, and an engine in front of which a RecordingModel stands.
  struct Loaded {
    explicit Loaded(const std::string& scheme, double rate) {
      auto made = MakeCpuBackend({});
      EXPECT_TRUE(made.ok()) << made.status();
      backend = *std::move(made);
      LoadOptions options;
      options.path = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";
      options.kv_memory_bytes = 64 << 20;
      options.max_running = 4;
      options.kv_scheme = scheme;
      auto model = LoadModel(*backend, options);
      EXPECT_TRUE(model.ok()) << model.status();
      loaded = *std::move(model);
      recorder = std::make_unique<RecordingModel>(*loaded.model);
      loaded.engine_options.canary_rate = rate;
      engine = std::make_unique<Engine>(*recorder, *loaded.tokenizer, loaded.engine_options);
    }
    std::vector<int32_t> Run(const std::vector<int32_t>& prompt, int32_t tokens) const {
      GenerateRequest request;
      request.prompt = prompt;
      request.sampling.temperature = 0;
      request.stop.max_tokens = tokens;
      request.stop.ignore_eos = true;
      const auto sink = std::make_shared<RecordingSink>();
      EXPECT_TRUE(engine->Submit(request, sink).ok());
      sink->WaitForFinal();
      return sink->tokens();
    }
    std::unique_ptr<Backend> backend;
    LoadedModel loaded;
    std::unique_ptr<RecordingModel> recorder;
    std::unique_ptr<Engine> engine;
  };
};

TEST_P(CanaryRowsTest, AreThoseOfTheRequestAndThoseOfAnExactServerBitForBit) {
  constexpr int32_t kTokens = 90;
  std::vector<int32_t> text(330);
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int32_t>(3 + i * i % 400);
  const Loaded server(GetParam(), 1);
  const std::vector<int32_t> output = server.Run(text, kTokens);
  const CanaryMetrics& metrics = server.engine->metrics().canary;
  ASSERT_TRUE(Eventually([&] { return metrics.finished.value() == 1; }));

  RecordingModel::Rows request, again, exact;
  for (const RecordingModel::Rows& step : server.recorder->TakeSteps()) {
    if (std::ssize(request) < kTokens) {
      request.insert(request.end(), step.begin(), step.end());
      continue;
    }
    const auto middle = step.begin() + std::ssize(step) / 2;
    again.insert(again.end(), step.begin(), middle);
    exact.insert(exact.end(), middle, step.end());
  }
  EXPECT_EQ(request.size(), static_cast<size_t>(kTokens));
  EXPECT_TRUE(again == request);

  text.insert(text.end(), output.begin(), output.end());
  double kl = 0;
  for (size_t i = 0; i < exact.size(); ++i) kl += Compare(exact[i], request[i], output[i]).kl;
  EXPECT_GT(kl, 0);
  EXPECT_NEAR(metrics.kl.sum(), kl, 1e-6);
  EXPECT_EQ(metrics.kl.count(), static_cast<uint64_t>(kTokens));
  EXPECT_EQ(metrics.same_top.value() + metrics.other_top.value(), static_cast<uint64_t>(kTokens));

  const Loaded exact_server("exact", 1);
  EXPECT_EQ(exact_server.engine->canary_rate(), 0);
  for (const size_t token : {size_t{0}, size_t{37}, size_t{89}}) {
    exact_server.recorder->TakeSteps();
    exact_server.Run({text.begin(), text.begin() + 330 + static_cast<std::ptrdiff_t>(token)}, 1);
    EXPECT_TRUE(exact_server.recorder->TakeSteps().back().front() == exact[token]) << token;
  }
}

INSTANTIATE_TEST_SUITE_P(OfEveryKind, CanaryRowsTest,
                         ::testing::Values("int8", "kivi-2", "fit-2/1"), [](const auto& test) {
                           std::string name = test.param;
                           std::erase_if(name, [](char c) { return c == '-' || c == '/'; });
                           return name;
                         });

}  // namespace
}  // namespace asymserve::testing
