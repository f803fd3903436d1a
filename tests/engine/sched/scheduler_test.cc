#include "engine/sched/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/engine/sched/scheduler_fixture.h"

// Coming, running and going: admission, prefill, decode, ends and deadlines, one plan at a time.

namespace asymserve {
namespace {

using ::testing::HasSubstr;

class SchedulerTest : public SchedulerFixture {
 protected:
  void ExpectRefused(const SequenceSpec& spec, absl::StatusCode code, const std::string& message) {
    const SchedulerStats before = scheduler().stats();
    const absl::Status status = scheduler().Add(spec);
    EXPECT_EQ(status.code(), code);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    scheduler().CheckInvariants();
    EXPECT_EQ(scheduler().stats().waiting, before.waiting);
    EXPECT_EQ(scheduler().stats().pages_used, before.pages_used);
  }
};

TEST_F(SchedulerTest, RefusesASequenceThatNeverFitsAndSaysHowManyPagesItNeeds) {
  options_.arena = ArenaCut::Pages(5);
  ExpectRefused(Spec(1, 11, 11), absl::StatusCode::kInvalidArgument,
                "need 6 pages, the pool has 5");
}

TEST_F(SchedulerTest, RunsASequenceThatFillsThePoolToTheLastTokenWithoutPreemption) {
  options_.arena = ArenaCut::Pages(5);
  Add(1, 11, 10);  // 20 tokens stored: the last generated one never is
  for (int i = 0; i < 11; ++i) Step();
  EXPECT_TRUE(scheduler().idle());
  EXPECT_EQ(scheduler().stats().preemptions, 0u);
}

TEST_F(SchedulerTest, RefusesLengthsOutOfRange) {
  options_.max_context_tokens = 20;
  ExpectRefused(Spec(1, 0, 1), absl::StatusCode::kInvalidArgument, "prompt_tokens");
  ExpectRefused(Spec(1, -5, 1), absl::StatusCode::kInvalidArgument, "got -5");
  ExpectRefused(Spec(1, 1, 0), absl::StatusCode::kInvalidArgument, "max_new_tokens");
  ExpectRefused(Spec(1, 15, 6), absl::StatusCode::kInvalidArgument, "are 21, the context holds 20");
  ExpectRefused(Spec(1, INT32_MAX, INT32_MAX), absl::StatusCode::kInvalidArgument, "4294967294");
  Add(1, 15, 5);
}

TEST_F(SchedulerTest, RefusesAKnownIdUntilItsSequenceIsGone) {
  Add(7, 3, 5);
  ExpectRefused(Spec(7, 3, 5), absl::StatusCode::kInvalidArgument, "sequence 7");
  const StepPlan plan = Plan();
  Cancel(7);
  ExpectRefused(Spec(7, 3, 5), absl::StatusCode::kInvalidArgument, "sequence 7");
  Commit(plan);
  Add(7, 3, 5);
}

TEST_F(SchedulerTest, RefusesWhenTheQueueIsFull) {
  options_.max_waiting = 2;
  Add(1, 3, 5);
  Add(2, 3, 5);
  ExpectRefused(Spec(3, 3, 5), absl::StatusCode::kResourceExhausted, "2 sequences wait");
  Step();  // both run: the queue is empty
  Add(3, 3, 5);
}

TEST_F(SchedulerTest, PrefillStopsAtEachMultipleOfTheChunkAndSamplesAtThePromptsEndOnly) {
  Add(1, 19, 3);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,8)");
  EXPECT_EQ(Describe(Step()), "1:prefill[8,16)");
  EXPECT_EQ(Describe(Step()), "1:prefill[16,19)*");
  EXPECT_EQ(Describe(Step()), "1:decode[19,20)*");
}

TEST_F(SchedulerTest, AChunkCutShortByTheBudgetIsFinishedBeforeTheNextBegins) {
  options_.step_tokens = 11;
  Add(1, 12, 1);
  Add(2, 12, 1);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,8) 2:prefill[0,3)");
  EXPECT_EQ(Describe(Step()), "1:prefill[8,12)* 2:prefill[3,8)");
}

TEST_F(SchedulerTest, DecodingSequencesGetTheirTokenBeforeAnyPrompt) {
  options_.step_tokens = 8;
  Add(1, 2, 9);
  Add(2, 2, 9);
  Step();
  Add(3, 20, 2);
  EXPECT_EQ(Describe(Step()), "1:decode[2,3)* 2:decode[2,3)* 3:prefill[0,6)");
  EXPECT_EQ(Describe(Step()), "1:decode[3,4)* 2:decode[3,4)* 3:prefill[6,8)");
}

TEST_F(SchedulerTest, WhileSomebodyDecodesPromptsGetTheirTokensOfAStepAndNobodyIsAdmittedBehind) {
  Add(1, 3, 9);
  Add(2, 8, 5);
  const auto step = [this](int32_t catch_up_tokens) {
    const StepPlan plan = scheduler().Plan(0, catch_up_tokens);
    Commit(plan);
    return Describe(plan);
  };
  EXPECT_EQ(step(2), "1:prefill[0,3)* 2:prefill[0,8)*");  // nobody decodes
  Add(3, 5, 5);
  Add(4, 2, 5);
  EXPECT_EQ(step(3), "1:decode[3,4)* 2:decode[8,9)* 3:prefill[0,3)");
  EXPECT_EQ(scheduler().stats().waiting, 1);
  EXPECT_EQ(step(1), "1:decode[4,5)* 2:decode[9,10)* 3:prefill[3,4)");
  EXPECT_EQ(step(2), "1:decode[5,6)* 2:decode[10,11)* 3:prefill[4,5)* 4:prefill[0,1)");
}

TEST_F(SchedulerTest, TheOldestPromptIsPrefilledFirst) {
  options_.step_tokens = 8;
  Add(1, 8, 1);
  Add(2, 8, 1);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,8)*");
  EXPECT_EQ(Describe(Step()), "2:prefill[0,8)*");
}

TEST_F(SchedulerTest, APageTableEndsWithTheItemsLastToken) {
  Add(1, 9, 6);
  EXPECT_EQ(Plan().items.at(0).pages.size(), 2u);
}

TEST_F(SchedulerTest, AdmissionTakesThePagesOfThePromptAndOneMoreToken) {
  Add(1, 8, 5);
  Step();
  EXPECT_EQ(pages_used(), 3);
}

TEST_F(SchedulerTest, GrowsByOnePageWhenATokenCrossesThePageBoundary) {
  Add(1, 7, 9);  // admission takes the prompt and one token: 8 tokens, 2 pages
  Step();
  EXPECT_EQ(pages_used(), 2);
  Step();  // token 7
  EXPECT_EQ(pages_used(), 2);
  const StepPlan plan = Plan();  // token 8
  EXPECT_EQ(pages_used(), 3);
  EXPECT_EQ(plan.items.at(0).pages.size(), 3u);
}

TEST_F(SchedulerTest, EndsASequenceThatGeneratedMaxNewTokens) {
  Add(1, 3, 2);
  StepPlan plan = Plan();
  EXPECT_EQ(Commit(plan), IdList{});
  plan = Plan();
  EXPECT_EQ(Commit(plan), IdList{1});
  EXPECT_EQ(pages_used(), 0);
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(SchedulerTest, ASequenceOfOneTokenEndsWithItsPrefill) {
  Add(1, 4, 1);
  const StepPlan plan = Plan();
  EXPECT_EQ(pages_used(), 1);  // nothing after the prompt is ever stored
  EXPECT_EQ(Commit(plan), IdList{1});
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(SchedulerTest, AFinishedOutcomeEndsTheSequenceAndFreesItsPages) {
  Add(1, 3, 50);
  Add(2, 3, 50);
  const StepPlan plan = Plan();
  EXPECT_EQ(Commit(plan, {1}), IdList{1});
  EXPECT_EQ(pages_used(), 1);
  EXPECT_EQ(Describe(Step()), "2:decode[3,4)*");
}

TEST_F(SchedulerTest, HigherPriorityIsAdmittedFirstAndEqualPriorityInOrderOfArrival) {
  options_.max_running = 1;
  Add(1, 2, 1, 0);
  Add(2, 2, 1, 5);
  Add(3, 2, 1, -1);
  SequenceSpec early = Spec(4, 2, 1, 0);
  early.arrival = -10;
  ASSERT_TRUE(scheduler().Add(early).ok());
  for (const char* expected : {"2", "4", "1", "3"}) {
    EXPECT_EQ(Describe(Step()), std::string(expected) + ":prefill[0,2)*");
  }
}

TEST_F(SchedulerTest, RunsNoMoreThanMaxRunning) {
  options_.max_running = 2;
  for (uint64_t id = 1; id <= 3; ++id) Add(id, 2, 2);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,2)* 2:prefill[0,2)*");
  EXPECT_EQ(scheduler().stats().running, 2);
  EXPECT_EQ(scheduler().stats().waiting, 1);
  Step();
  EXPECT_EQ(Describe(Step()), "3:prefill[0,2)*");
  EXPECT_EQ(scheduler().stats().blocked_plans, 0u);  // memory was not what they waited for
}

TEST_F(SchedulerTest, NobodyOvertakesAHeadThatDoesNotFitYet) {
  options_.arena = ArenaCut::Pages(6);
  Add(1, 14, 2);  // 4 pages
  Step();
  Add(2, 9, 2);  // 3 pages, 2 are free
  Add(3, 1, 2);
  EXPECT_EQ(Describe(Step()), "1:prefill[8,14)*");
  EXPECT_EQ(Describe(Step()), "1:decode[14,15)*");
  EXPECT_EQ(Describe(Step()), "2:prefill[0,8) 3:prefill[0,1)*");
  EXPECT_EQ(scheduler().stats().blocked_plans, 2u);
}

TEST_F(SchedulerTest, SmallerOnesOvertakeAHeadWithoutRoomAsOftenAsAllowed) {
  options_.arena = ArenaCut::Pages(8);
  options_.bypass_sequences = 2;
  options_.bypass_tokens = 1000;
  Add(1, 14, 6);  // 4 pages, later 5
  Step();
  Add(2, 18, 2);  // 5 pages
  for (uint64_t id = 3; id <= 5; ++id) Add(id, 1, 2);
  EXPECT_EQ(Describe(Step()), "1:prefill[8,14)* 3:prefill[0,1)* 4:prefill[0,1)*");
  for (int i = 0; i < 5; ++i) Step();
  EXPECT_EQ(Describe(Step()), "2:prefill[0,8) 5:prefill[0,1)*");
}

TEST_F(SchedulerTest, OvertakingIsBoundedByTokensToo) {
  options_.arena = ArenaCut::Pages(8);
  options_.bypass_sequences = 10;
  options_.bypass_tokens = 7;
  Add(1, 14, 6);
  Step();
  Add(2, 18, 2);
  Add(3, 1, 4);
  Add(4, 1, 2);
  Add(5, 1, 1);
  EXPECT_EQ(Describe(Step()), "1:prefill[8,14)* 3:prefill[0,1)* 5:prefill[0,1)*");
}

TEST_F(SchedulerTest, RefusesPrioritiesAndWeightsOutOfRange) {
  ExpectRefused(Spec(1, 2, 2, 101), absl::StatusCode::kInvalidArgument, "priority: 101");
  ExpectRefused(Spec(1, 2, 2, INT32_MIN), absl::StatusCode::kInvalidArgument, "[-100, 100]");
  SequenceSpec spec = Spec(1, 2, 2);
  spec.weight = 0;
  ExpectRefused(spec, absl::StatusCode::kInvalidArgument, "weight: 0");
}

TEST_F(SchedulerTest, AdmissionLeavesTheWatermarkFree) {
  options_.arena = ArenaCut::Pages(6);
  options_.watermark_pages = 2;
  Add(1, 6, 3);  // 2 pages
  Add(2, 6, 3);  // 2 pages, leaves 2
  Add(3, 1, 3);  // 1 page would leave 1
  EXPECT_EQ(Describe(Step()), "1:prefill[0,6)* 2:prefill[0,6)*");
  EXPECT_EQ(scheduler().stats().waiting, 1);
}

TEST_F(SchedulerTest, TheWatermarkDoesNotStopASequenceWhenNothingRuns) {
  options_.arena = ArenaCut::Pages(3);
  options_.watermark_pages = 3;
  Add(1, 12, 1);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,8)");
}

TEST_F(SchedulerTest, AdmissionLeavesAPageForEachRunningSequenceThatNeedsOneNext) {
  options_.arena = ArenaCut::Pages(3);
  Add(1, 7, 5);
  Step();
  Add(2, 1, 2);  // one page is free, but token 7 fills the second page of 1
  EXPECT_EQ(Describe(Step()), "1:decode[7,8)*");
  EXPECT_EQ(Describe(Step()), "1:decode[8,9)*");
  EXPECT_EQ(scheduler().stats().preemptions, 0u);
}

TEST_F(SchedulerTest, CancelTakesAWaitingSequenceOutAtOnce) {
  Add(1, 2, 2);
  Cancel(1);
  EXPECT_TRUE(scheduler().idle());
  EXPECT_TRUE(Plan().empty());
}

TEST_F(SchedulerTest, CancelFreesARunningSequencesPagesAtOnceBetweenSteps) {
  Add(1, 9, 9);
  Step();
  EXPECT_EQ(pages_used(), 3);
  Cancel(1);
  EXPECT_EQ(pages_used(), 0);
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(SchedulerTest, CancelWhilePlannedFreesThePagesAtThatCommitAndReportsNothing) {
  Add(1, 9, 9);
  const StepPlan plan = Plan();
  Cancel(1);
  Cancel(1);
  EXPECT_EQ(pages_used(), 3);
  EXPECT_FALSE(scheduler().idle());
  EXPECT_EQ(scheduler().stats().running, 0);
  EXPECT_EQ(Commit(plan), IdList{});
  EXPECT_EQ(pages_used(), 0);
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(SchedulerTest, CancelOfAnUnknownSequenceDoesNothing) {
  Add(1, 2, 2);
  Cancel(99);
  EXPECT_EQ(scheduler().stats().waiting, 1);
}

TEST_F(SchedulerTest, ExpiresWaitingAndRunningSequencesWhenTheirDeadlineComes) {
  options_.max_running = 1;
  SequenceSpec running = Spec(1, 2, 50);
  running.deadline = 100;
  SequenceSpec waiting = Spec(2, 2, 50);
  waiting.deadline = 50;
  ASSERT_TRUE(scheduler().Add(running).ok());
  ASSERT_TRUE(scheduler().Add(waiting).ok());
  EXPECT_EQ(scheduler().next_deadline(), 50);
  StepPlan plan = Plan(49);
  EXPECT_TRUE(plan.expired.empty());
  Commit(plan);
  plan = Plan(50);
  EXPECT_EQ(Ids(plan.expired), IdList{2});
  EXPECT_EQ(Describe(plan), "1:decode[2,3)*");
  Commit(plan);
  EXPECT_EQ(scheduler().next_deadline(), 100);
  plan = Plan(1000);
  EXPECT_EQ(Ids(plan.expired), IdList{1});
  EXPECT_TRUE(plan.empty());
  EXPECT_EQ(pages_used(), 0);
  EXPECT_EQ(scheduler().next_deadline(), kNoDeadline);
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(SchedulerTest, AQueueDeadlineEndsOnlySequencesThatNeverRan) {
  options_.max_running = 1;
  for (uint64_t id = 1; id <= 2; ++id) {
    SequenceSpec spec = Spec(id, 2, 50);
    spec.queue_deadline = 100;
    spec.deadline = 200;
    ASSERT_TRUE(scheduler().Add(spec).ok());
  }
  Commit(Plan(99));
  EXPECT_EQ(scheduler().next_deadline(), 100);
  const StepPlan plan = Plan(100);
  EXPECT_EQ(Ids(plan.expired), IdList{2});
  EXPECT_EQ(Describe(plan), "1:decode[2,3)*");
  Commit(plan);
  EXPECT_EQ(scheduler().next_deadline(), 200);
  EXPECT_EQ(Ids(Plan(200).expired), IdList{1});
}

TEST_F(SchedulerTest, AnEmptyPlanNeedsNoCommit) {
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(Plan().empty());
  EXPECT_TRUE(scheduler().idle());
  Add(1, 2, 1);
  EXPECT_EQ(Describe(Step()), "1:prefill[0,2)*");
}

using SchedulerDeathTest = SchedulerTest;

TEST_F(SchedulerDeathTest, PlansMustBeCommittedInOrder) {
  Add(1, 2, 9);
  Plan();
  const StepPlan second = Plan();
  EXPECT_DEATH(Commit(second), "broken invariant");
}

TEST_F(SchedulerDeathTest, OnlyOnePlanMayBeOutstandingWhenTheNextIsMade) {
  Add(1, 2, 9);
  Plan();
  Plan();
  EXPECT_DEATH(Plan(), "broken invariant");
}

TEST_F(SchedulerDeathTest, EverySampledItemNeedsItsOutcome) {
  Add(1, 2, 9);
  const StepPlan plan = Plan();
  EXPECT_DEATH(scheduler().Commit(plan, {}), "broken invariant");
}

}  // namespace
}  // namespace asymserve
