#include "engine/runtime/backlog.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace asymserve {
namespace {

using ::testing::HasSubstr;

class BacklogTest : public ::testing::Test {
 protected:
  static QueueShare Share(int32_t tenant, int32_t prefill, int32_t weight = 1,
                          int32_t priority = 0) {
    return {.tenant = tenant,
            .weight = weight,
            .priority = priority,
            .prefill_tokens = prefill,
            .cost = prefill};
  }
  /// Prefill takes 1 ms a token, a step of 4 decode rows 10 ms; 4 run and nothing waits.
  void Measure() {
    for (int i = 0; i < 10; ++i) {
      backlog_.OnStep({.prefill_tokens = 10, .duration = 10'000}, 4, 0, now_);
      backlog_.OnStep({.decode_rows = 4, .duration = 10'000}, 4, 0, now_);
    }
  }
  /// Two sequences a second leave a queue that does not empty.
  void MeasureDrain() {
    for (int i = 0; i < 20; ++i) {
      Join(Share(9, 0));
      backlog_.OnStep({}, 4, 1, now_);
      backlog_.Leave(Share(9, 0), true, true);
      now_ += 500'000;
      backlog_.OnStep({}, 4, 1, now_);
    }
  }
  void Join(const QueueShare& share, int32_t sequences = 1) {
    EXPECT_TRUE(backlog_.Join(share, sequences, {}).ok());
  }
  std::string Refusal(const QueueShare& share, const TimeLimits& limits) {
    const bool had_room = backlog_.HasRoom(1);
    const absl::Status status = backlog_.Join(share, 1, limits).status();
    EXPECT_EQ(backlog_.HasRoom(1), had_room || status.ok());
    EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
    return std::string(status.message());
  }

  Backlog backlog_{{.max_waiting = 30, .step_tokens = 104, .chunk_tokens = 50}};
  TimeUs now_ = 1;
};

TEST_F(BacklogTest, RefusesWhatDoesNotFitAndTouchesNothing) {
  Join(Share(1, 5), 29);
  const absl::Status status = backlog_.Join(Share(1, 5), 2, {}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the queue is full: 29 sequences wait, 30 may");
  EXPECT_TRUE(backlog_.HasRoom(1));
  for (int i = 0; i < 29; ++i) backlog_.Leave(Share(1, 5), i == 0, true);
  EXPECT_TRUE(backlog_.HasRoom(30));
}

TEST_F(BacklogTest, ATenantMayTakeAllPlacesAsLongAsNobodyElseWantsOne) {
  Join(Share(1, 5), 30);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 1, {}).ok());  // it has more than its share: no claim
  backlog_.Leave(Share(1, 5), true, true);
  Join(Share(1, 5));
}

TEST_F(BacklogTest, ATenantThatWasRefusedItsShareGetsItHoweverManyTheOtherSends) {
  Join(Share(1, 5), 30);
  EXPECT_FALSE(backlog_.Join(Share(2, 5, 2), 1, {}).ok());
  backlog_.Leave(Share(1, 5), true, true);
  // Of 30 places weight 2 of 3 has 20, and tenant 1 has 10.
  const absl::Status greedy = backlog_.Join(Share(1, 5), 1, {}).status();
  EXPECT_EQ(greedy.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(greedy.message(),
            "the tenant's share of the queue is full: 29 of its sequences wait, 10 of 30 may while "
            "other tenants want theirs");
  Join(Share(2, 5, 2));
  backlog_.Leave(Share(2, 5, 2), true, true);
  Join(Share(3, 5));  // a third has a share, too
  backlog_.Leave(Share(3, 5), true, true);
  backlog_.OnStep({}, 4, 29, now_);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 1, {}).ok());
  // Without another refusal it is over after a while.
  now_ += Backlog::kShareTime + 2;
  backlog_.OnStep({}, 4, 29, now_);
  Join(Share(1, 5));
}

TEST_F(BacklogTest, ARequestLargerThanItsTenantsShareIsTakenOnceTheTenantHasNothingThere) {
  Join(Share(1, 5), 29);
  EXPECT_FALSE(backlog_.Join(Share(2, 5), 20, {}).ok());
  for (int i = 0; i < 19; ++i) backlog_.Leave(Share(1, 5), i == 0, true);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 20, {}).ok());
  Join(Share(3, 5), 20);  // of which 10 are its share
  EXPECT_FALSE(backlog_.Join(Share(3, 5), 1, {}).ok());
}

TEST_F(BacklogTest, TheTimeOfAShareBeginsWithTheStepInWhichItsTenantWasRefused) {
  Join(Share(1, 5), 30);
  EXPECT_FALSE(backlog_.CheckRoom(Share(2, 0)).ok());
  now_ += 2 * Backlog::kShareTime;
  backlog_.OnStep({}, 4, 30, now_);
  backlog_.Leave(Share(1, 5), true, true);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 1, {}).ok());
}

TEST_F(BacklogTest, WhatIsRefusedTakesNoPlace) {
  Join(Share(1, 5), 29);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 2, {}).ok());
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 1, {.deadline = -1, .max_queue = {}}).ok());
  EXPECT_TRUE(backlog_.HasRoom(1));
  Join(Share(1, 5));
}

TEST_F(BacklogTest, ARefusalBeforeTheRequestIsReadCountsAsOne) {
  Join(Share(1, 5), 30);
  EXPECT_FALSE(backlog_.CheckRoom(Share(2, 0)).ok());
  backlog_.Leave(Share(1, 5), true, true);
  EXPECT_FALSE(backlog_.Join(Share(1, 5), 1, {}).ok());
  Join(Share(2, 5));
}

TEST_F(BacklogTest, ADeadlineInThePastIsRefusedBeforeAnythingIsMeasured) {
  EXPECT_EQ(Refusal(Share(1, 5), {.deadline = -7000, .max_queue = {}}),
            "deadline: passed 7 ms ago");
}

TEST_F(BacklogTest, KnowsNothingAndRefusesNobodyUntilStepsWereMeasured) {
  Join(Share(1, 5000));
  EXPECT_FALSE(backlog_.EstimateOf(Share(1, 5000)).has_value());
  EXPECT_TRUE(backlog_.Join(Share(1, 5000), 1, {.deadline = 1, .max_queue = 1}).ok());
}

TEST_F(BacklogTest, AnIdleEngineTakesEveryRequestToMeasureAgain) {
  Measure();
  backlog_.OnStep({}, 0, 0, now_);
  EXPECT_TRUE(backlog_.Join(Share(1, 5000), 1, {.deadline = 1, .max_queue = 1}).ok());
}

TEST_F(BacklogTest, PrefillIsItsOwnTokensAndTheDecodeRowsBesideItsChunks) {
  Measure();
  const auto estimate = backlog_.EstimateOf(Share(1, 200));
  ASSERT_TRUE(estimate.has_value());
  EXPECT_EQ(estimate->queue, 0);
  EXPECT_NEAR(static_cast<double>(estimate->prefill), 200'000 + 4 * 10'000, 10);
}

TEST_F(BacklogTest, PromptsGetWhatDecodingLeavesOfAStepButAQuarterOfIt) {
  EXPECT_EQ(backlog_.CatchUpTokens(4), INT32_MAX);
  Backlog limited({.max_waiting = 30, .step_tokens = 104, .chunk_tokens = 50, .step_us = 25'500});
  EXPECT_EQ(limited.CatchUpTokens(4), INT32_MAX);  // nothing is measured
  const auto measure = [&](TimeUs decode_us) {
    for (int i = 0; i < 1000; ++i) {
      limited.OnStep({.prefill_tokens = 10, .duration = 10'000}, 4, 0, now_);
      limited.OnStep({.decode_rows = 4, .duration = decode_us}, 4, 0, now_);
    }
  };
  measure(10'000);
  EXPECT_EQ(limited.CatchUpTokens(4), 15);
  EXPECT_EQ(limited.CatchUpTokens(0), INT32_MAX);
  const auto estimate = limited.EstimateOf(Share(1, 45));  // three steps of 15
  ASSERT_TRUE(estimate.has_value());
  EXPECT_NEAR(static_cast<double>(estimate->prefill), 45'000 + 3 * 10'000, 10);
  measure(60'500);
  EXPECT_EQ(limited.CatchUpTokens(4), 20);
  limited.SetStepTime(110'500);
  EXPECT_EQ(limited.CatchUpTokens(4), 50);
  limited.SetStepTime(0);
  EXPECT_EQ(limited.CatchUpTokens(4), INT32_MAX);
}

TEST_F(BacklogTest, PromptsCountAsIfTheyWereCachedLikeTheBestOfTheNewest) {
  Measure();
  Join(Share(1, 400));
  backlog_.OnPrompt(100, 75);
  backlog_.OnPrompt(100, 0);
  const auto estimate = backlog_.EstimateOf(Share(1, 200));
  EXPECT_NEAR(static_cast<double>(estimate->queue), 400'000 * 0.265, 10);
  EXPECT_NEAR(static_cast<double>(estimate->prefill), 200'000 * 0.265 + 2 * 10'000, 10);
  for (int i = 0; i < 500; ++i) backlog_.OnPrompt(100, 0);
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 200))->queue), 400'000, 50);
}

TEST_F(BacklogTest, RefusesAFirstTokenThatIsEstimatedAtMoreThanTwiceTheTimeLeft) {
  Measure();  // the first token of 200 tokens: 240 ms
  EXPECT_TRUE(backlog_.Join(Share(2, 200), 1, {.deadline = 125'000, .max_queue = {}}).ok());
  EXPECT_EQ(Refusal(Share(1, 200), {.deadline = 115'000, .max_queue = {}}),
            "deadline: 115 ms are left, the first token is estimated in 240 ms (queue 0 ms, "
            "prefill 240 ms)");
}

TEST_F(BacklogTest, TheTokensThatARequestIsCertainToGenerateCountForItsDeadline) {
  Measure();  // 240 ms, and 10 ms for each further token
  const auto limits = [](int32_t tokens) {
    return TimeLimits{.deadline = 500'000, .max_queue = {}, .certain_tokens = tokens};
  };
  EXPECT_TRUE(backlog_.Join(Share(2, 200), 1, limits(75)).ok());
  EXPECT_EQ(Refusal(Share(1, 200), limits(79)),
            "deadline: 500 ms are left, the first token is estimated in 240 ms (queue 0 ms, "
            "prefill 240 ms), the 78 after it in 780 ms more");
}

TEST_F(BacklogTest, WhoWaitsMustBeginWhileItsOwnPartTakesNoMoreThanTwiceTheTimeLeft) {
  const auto start_by = [this](const TimeLimits& limits) {
    return backlog_.Join(Share(2, 200), 1, limits).value();
  };
  EXPECT_EQ(start_by({.deadline = 500'000, .max_queue = {}}), kNoDeadline) << "nothing is measured";
  Measure();
  // Of 240 ms, and 10 ms for each further token, one half before the deadline; the queue, by now of
  // 200 tokens, has no part in it.
  EXPECT_NEAR(static_cast<double>(start_by({.deadline = 500'000, .max_queue = {}})), 380'000, 50);
  EXPECT_NEAR(static_cast<double>(
                  start_by({.deadline = 500'000, .max_queue = 900'000, .certain_tokens = 21})),
              280'000, 50);
  EXPECT_EQ(start_by({.deadline = {}, .max_queue = 900'000}), kNoDeadline);
}

TEST_F(BacklogTest, TheQueueIsThePrefillOfTheTenantsOwnRequestsAndTheShareOfOthers) {
  Measure();
  Join(Share(1, 100, 2));
  Join(Share(2, 1000, 1));
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 10, 2))->queue), 150'000, 10);
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(2, 10, 1))->queue), 1'100'000, 10);
  EXPECT_EQ(backlog_.EstimateOf(Share(3, 10))->queue, 0);
}

TEST_F(BacklogTest, AHigherPriorityDoesNotWaitForItsTenantsOthersNorAnyoneForLowerOnes) {
  Measure();
  Join(Share(1, 100));
  Join(Share(1, 100, 1, -1));
  EXPECT_EQ(backlog_.EstimateOf(Share(1, 10, 1, 1))->queue, 0);
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 10))->queue), 100'000, 10);
}

TEST_F(BacklogTest, ContinuationsOfAPromptCountItsPrefillOnce) {
  Measure();
  Join(Share(1, 100), 8);
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 10))->queue), 100'000, 10);
  for (int i = 0; i < 8; ++i) backlog_.Leave(Share(1, 100), i == 0, true);
  EXPECT_EQ(backlog_.EstimateOf(Share(1, 10))->queue, 0);
}

TEST_F(BacklogTest, AQueueThatDoesNotEmptyTakesItsLengthAndOneMoreOverTheDrainRate) {
  Measure();
  MeasureDrain();
  Join(Share(1, 1), 6);
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 10))->queue), 3'500'000, 60'000);
  EXPECT_THAT(Refusal(Share(1, 10), {.deadline = {}, .max_queue = 1'000'000}),
              HasSubstr("max_queue_ms: 1000 ms are allowed, the queue is estimated to take "));
  EXPECT_THAT(Refusal(Share(1, 10), {.deadline = {}, .max_queue = 3'400'000}),
              HasSubstr("max_queue_ms: 3400 ms are allowed"));
  EXPECT_TRUE(backlog_.Join(Share(1, 10), 1, {.deadline = {}, .max_queue = 3'600'000}).ok());
}

TEST_F(BacklogTest, WhoGivesUpInTheQueueDoesNotMakeItFaster) {
  Measure();
  MeasureDrain();
  Join(Share(1, 1), 6);
  for (int i = 0; i < 20; ++i) {  // two a second run, two give up
    Join(Share(9, 0), 2);
    backlog_.OnStep({}, 4, 1, now_);
    backlog_.Leave(Share(9, 0), true, true);
    backlog_.Leave(Share(9, 0), false, false);
    now_ += 500'000;
    backlog_.OnStep({}, 4, 1, now_);
  }
  EXPECT_NEAR(static_cast<double>(backlog_.EstimateOf(Share(1, 10))->queue), 3'500'000, 60'000);
}

TEST_F(BacklogTest, EachRefusedOneIsToldALaterPlaceAtTheDrainRate) {
  EXPECT_EQ(backlog_.NextRetry(), Backlog::kUnknownRetry);
  Measure();
  MeasureDrain();
  Measure();  // there was room for all
  EXPECT_NEAR(static_cast<double>(backlog_.NextRetry().count()), 500, 10);
  EXPECT_NEAR(static_cast<double>(backlog_.NextRetry().count()), 1000, 20);
  EXPECT_NEAR(static_cast<double>(backlog_.NextRetry().count()), 1500, 30);
  Join(Share(1, 1), 18);  // of 30 places
  const auto step_without = [&](int sequences, bool first) {
    for (int i = 0; i < sequences; ++i) backlog_.Leave(Share(1, 1), first && i == 0, true);
    backlog_.OnStep({}, 4, 1, now_);
  };
  step_without(2, true);
  EXPECT_NEAR(static_cast<double>(backlog_.NextRetry().count()), 1000, 20);
  for (int i = 0; i < 1000; ++i) backlog_.NextRetry();
  EXPECT_EQ(backlog_.NextRetry(), Backlog::kMaxRetry);
  step_without(1, false);  // half of the places are free
  step_without(0, false);  // and nobody was refused since
  EXPECT_NEAR(static_cast<double>(backlog_.NextRetry().count()), 500, 10)
      << "nobody is told of a crowd that has gone";
}

}  // namespace
}  // namespace asymserve
