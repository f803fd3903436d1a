#include <gtest/gtest.h>

#include "tests/engine/sched/scheduler_fixture.h"

// Pages running out, and plans made before the last one is committed.

namespace asymserve {
namespace {

class PreemptionTest : public SchedulerFixture {
 protected:
  /// Three sequences of one page each, all pages taken, the next decode step of all needs another.
  void FillThreePages(int32_t generated = 6) {
    options_.arena = ArenaCut::Pages(3);
    for (uint64_t id = 1; id <= 3; ++id) Add(id, 3, generated);
    Step();
    Step();
    ASSERT_EQ(pages_used(), 3);
  }
};

TEST_F(PreemptionTest, PreemptsTheYoungestWhenPagesRunOut) {
  FillThreePages();
  const StepPlan plan = Plan();
  // 3 gives its page to 1; 2, then the youngest, finds none and gives up its own.
  EXPECT_EQ(Ids(plan.preempted), (IdList{3, 2}));
  EXPECT_EQ(Describe(plan), "1:decode[4,5)*");
  EXPECT_EQ(scheduler().stats().preemptions, 2u);
}

TEST_F(PreemptionTest, AVictimIsNotTakenBackInThePlanThatPreemptedIt) {
  options_.arena = ArenaCut::Pages(4);
  Add(1, 3, 6);
  Add(2, 9, 3);
  Step();  // 1 holds 1 page, 2 holds 3
  Step();
  const StepPlan plan = Plan();
  EXPECT_EQ(Ids(plan.preempted), IdList{2});
  EXPECT_EQ(Describe(plan), "1:decode[4,5)*");
  EXPECT_EQ(scheduler().stats().waiting, 1);
}

TEST_F(PreemptionTest, AVictimComesBackOnlyWhenTheRunningOnesCanGrow) {
  FillThreePages(2 + 4);  // each ends with 8 stored tokens: 2 pages
  Step();                 // only 1 runs, on 2 pages; 2 needs 2, one is free
  for (int i = 0; i < 3; ++i) {
    const StepPlan plan = Step();
    EXPECT_EQ(plan.items.size(), 1u);
    EXPECT_EQ(scheduler().stats().preemptions, 2u);
  }
  EXPECT_EQ(Describe(Step()), "2:prefill[0,3)");
}

TEST_F(PreemptionTest, ReplaysThePromptAsPrefillAndGeneratedTokensAsDecodeRowsWithinAPage) {
  options_.arena = ArenaCut::Pages(6);
  Add(1, 3, 21);  // 23 tokens stored: all 6 pages
  Add(2, 2, 13);
  const StepPlan plan = StepUntilPreemption();
  ASSERT_EQ(Ids(plan.preempted), IdList{2});
  Cancel(1);
  // It had sampled 10 tokens: 0 .. 11 exist, and the newest was not computed yet.
  EXPECT_EQ(Describe(Step()), "2:prefill[0,2)");
  EXPECT_EQ(Describe(Step()), "2:decode[2,4)");
  EXPECT_EQ(Describe(Step()), "2:decode[4,8)");
  EXPECT_EQ(Describe(Step()), "2:decode[8,11)");
  EXPECT_EQ(Describe(Step()), "2:decode[11,12)*");
  EXPECT_EQ(scheduler().stats().recomputed_tokens, 11u);
}

TEST_F(PreemptionTest, ReplayTakesOnlyWhatTheBudgetLeavesAfterDecoding) {
  options_.arena = ArenaCut::Pages(6);
  options_.step_tokens = 3;
  options_.max_running = 3;
  Add(1, 3, 21);
  Add(2, 2, 13);
  const StepPlan plan = StepUntilPreemption();
  ASSERT_EQ(Ids(plan.preempted), IdList{2});
  Cancel(1);
  Add(3, 1, 9);
  EXPECT_EQ(Describe(Step()), "2:prefill[0,2) 3:prefill[0,1)*");
  EXPECT_EQ(Describe(Step()), "2:decode[2,4) 3:decode[1,2)*");
  EXPECT_EQ(Describe(Step()), "2:decode[4,6) 3:decode[2,3)*");
}

TEST_F(PreemptionTest, APreemptedSequenceGoesBeforeOnesThatNeverRan) {
  FillThreePages();
  Add(4, 1, 1);
  SequenceSpec early = Spec(5, 1, 1);
  early.arrival = -100;
  ASSERT_TRUE(scheduler().Add(early).ok());
  Step();
  Cancel(1);
  EXPECT_EQ(Describe(Step()), "2:prefill[0,3)");  // 3 needs 2 pages, one is free: 4 and 5 wait too
}

TEST_F(PreemptionTest, APreemptedSequenceIsNeitherOvertakenNorPassedByAHigherPriority) {
  options_.bypass_sequences = 8;
  options_.bypass_tokens = 1000;
  FillThreePages();
  Step();
  Add(4, 1, 1, 1);  // one page is free, which 2 cannot use yet
  EXPECT_EQ(Describe(Step()), "1:decode[5,6)*");
}

TEST_F(PreemptionTest, PriorityDoesNotChooseTheVictim) {
  options_.arena = ArenaCut::Pages(2);
  Add(1, 2, 5, 0);
  Step();
  Add(2, 3, 5, 9);
  Step();
  Step();  // both pages are full
  const StepPlan plan = Plan();
  EXPECT_EQ(Ids(plan.preempted), IdList{2});
}

TEST_F(PreemptionTest, ASequenceThatCameBackKeepsItsAge) {
  options_.arena = ArenaCut::Pages(3);
  Add(1, 3, 6);
  Add(2, 3, 6);
  Step();
  Step();
  ASSERT_EQ(Ids(Step().preempted), IdList{2});
  Add(3, 1, 12, 1);
  ASSERT_EQ(Describe(Step()), "1:decode[5,6)*");
  Cancel(1);
  ASSERT_EQ(Describe(Step()), "2:prefill[0,3) 3:prefill[0,1)*");
  const StepPlan plan = StepUntilPreemption();
  EXPECT_EQ(Ids(plan.preempted), IdList{3});
}

TEST_F(PreemptionTest, WhoNeedsAPageWaitsForOneThatCameBackAndHasNotComputedAPageOfNewTokens) {
  options_.arena = ArenaCut::Pages(11);
  options_.step_tokens = 3;
  options_.max_running = 3;
  Add(1, 2, 40);
  Add(2, 1, 39);
  Add(3, 3, 20);
  int32_t computed = 0;  // of 3
  int32_t waits = 0;     // steps in which 3 runs and 2 does not
  const auto step_until_preemption = [&] {
    for (int i = 0; i < 100; ++i) {
      const StepPlan plan = Step();
      if (!plan.preempted.empty()) return Ids(plan.preempted);
      waits += plan.items.size() == 1 && plan.items[0].sequence == SequenceId{3} ? 1 : 0;
      for (const StepItem& item : plan.items) {
        if (item.sequence == SequenceId{3}) computed = item.begin + item.count;
      }
    }
    return IdList{};
  };
  ASSERT_EQ(step_until_preemption(), IdList{3});
  EXPECT_EQ(waits, 0);
  const int32_t known = computed + 1;
  Cancel(1);
  EXPECT_EQ(step_until_preemption(), IdList{3});
  EXPECT_GT(waits, 0);
  EXPECT_GE(computed, known + options_.scheme.page_tokens);
}

TEST_F(PreemptionTest, AVictimComesBackOnlyIfThereIsRoomForAPageOfNewTokens) {
  options_.arena = ArenaCut::Pages(9);
  Add(1, 3, 29);
  Add(2, 2, 20);
  ASSERT_EQ(Ids(StepUntilPreemption().preempted), IdList{2});
  Add(3, 20, 1);
  // 2 has 17 tokens: with a page of new ones it takes 6 pages of 9.
  for (StepPlan plan = Step(); Ids({plan.items.back().sequence}) != IdList{2}; plan = Step()) {
    ASSERT_EQ(plan.items.size(), 1u) << "somebody else went before it";
  }
  EXPECT_GE(pages_used(), 6);
}

class RunAheadTest : public PreemptionTest {};

TEST_F(RunAheadTest, PlansTheNextTokenBeforeTheFirstIsCommitted) {
  Add(1, 10, 9);
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  EXPECT_EQ(Describe(first), "1:prefill[0,8)");
  EXPECT_EQ(Describe(second), "1:prefill[8,10)*");
  Commit(first);
  EXPECT_EQ(Describe(Plan()), "1:decode[10,11)*");
}

TEST_F(RunAheadTest, NeverPlansMoreThanMaxNewTokens) {
  Add(1, 2, 2);
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  EXPECT_EQ(Describe(second), "1:decode[2,3)*");
  EXPECT_EQ(Commit(first), IdList{});
  EXPECT_TRUE(Plan().empty());
  EXPECT_EQ(Commit(second), IdList{1});
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(RunAheadTest, AFinishedSequenceKeepsItsPagesUntilTheLaterPlanCommits) {
  Add(1, 2, 9);
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  EXPECT_EQ(Commit(first, {1}), IdList{1});
  EXPECT_EQ(pages_used(), 1);
  EXPECT_EQ(scheduler().stats().running, 0);
  EXPECT_TRUE(Plan().empty());
  EXPECT_EQ(Commit(second), IdList{});  // it has left already
  EXPECT_EQ(pages_used(), 0);
}

TEST_F(RunAheadTest, ACancelledSequenceKeepsItsPagesUntilTheLastPlanThatHoldsItCommits) {
  Add(1, 2, 9);
  const StepPlan first = Plan();
  const StepPlan second = Plan();
  Cancel(1);
  EXPECT_EQ(Commit(first), IdList{});
  EXPECT_EQ(pages_used(), 1);
  EXPECT_EQ(Commit(second), IdList{});
  EXPECT_EQ(pages_used(), 0);
}

TEST_F(RunAheadTest, ARetiredSequenceStillCountsAgainstMaxRunning) {
  options_.max_running = 1;
  Add(1, 2, 9);
  Add(2, 2, 9);
  const StepPlan first = Plan();
  Cancel(1);
  EXPECT_TRUE(Plan().empty());
  Commit(first);
  EXPECT_EQ(Describe(Plan()), "2:prefill[0,2)*");
}

TEST_F(RunAheadTest, APassedDeadlineTakesEffectAfterTheOutstandingPlansCommit) {
  SequenceSpec spec = Spec(1, 2, 9);
  spec.deadline = 10;
  ASSERT_TRUE(scheduler().Add(spec).ok());
  const StepPlan first = Plan(0);
  const StepPlan second = Plan(10);
  EXPECT_TRUE(second.empty());
  EXPECT_TRUE(second.expired.empty());
  Commit(first);
  EXPECT_EQ(Ids(Plan(11).expired), IdList{1});
  EXPECT_TRUE(scheduler().idle());
}

TEST_F(RunAheadTest, HoldsTheYoungestBackWhenEveryVictimIsInTheOutstandingPlan) {
  options_.arena = ArenaCut::Pages(2);
  Add(1, 3, 4);
  Add(2, 2, 4);
  Step();
  const StepPlan second = Plan();
  EXPECT_EQ(Describe(second), "1:decode[3,4)* 2:decode[2,3)*");
  // 1 needs a page and 2 is outstanding: 1 waits a step, and 2 is left out so that it can go.
  const StepPlan third = Plan();
  EXPECT_TRUE(third.empty());
  EXPECT_TRUE(third.preempted.empty());
  Commit(second);
  const StepPlan fourth = Plan();
  EXPECT_EQ(Describe(fourth), "1:decode[4,5)*");
  EXPECT_EQ(Ids(fourth.preempted), IdList{2});
}

}  // namespace
}  // namespace asymserve
