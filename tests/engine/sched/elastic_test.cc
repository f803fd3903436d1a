#include <gtest/gtest.h>

#include <string>

#include "tests/engine/sched/scheduler_fixture.h"

// Refinements given up before anybody is preempted. Pages of 4 tokens are sealed as soon as they
// are complete; the newest two sealed ones have refinements, each as large as a slab, as near
// records are. A slab holds four bases.

namespace asymserve {
namespace {

class ElasticTest : public SchedulerFixture {
 protected:
  ElasticTest() {
    KvScheme& scheme = options_.scheme;
    scheme.near = KvCodec::kInt8;
    scheme.fresh_pages = 2;
    scheme.items = {KvItem{}};
    options_.arena.slab_bytes = 64;
    options_.arena.slabs = 9;
    options_.arena.per_slab = {1, 4, 1};
    options_.elastic = true;
  }

  /// Two sequences of 8 and two pages grow until somebody must give something up.
  StepPlan StepUntilPressure() {
    for (int i = 0; i < 200; ++i) {
      StepPlan plan = Step();
      if (scheduler().stats().unrefined > 0 || !plan.preempted.empty()) return plan;
    }
    return {};
  }
  static std::string Unrefined(const StepPlan& plan) {
    std::string text;
    for (const StepItem& item : plan.items) {
      if (item.unrefined) text += std::to_string(static_cast<uint64_t>(item.sequence)) + ' ';
    }
    return text;
  }
};

TEST_F(ElasticTest, TheYoungestGivesUpItsRefinementsBeforeAnybodyIsPreempted) {
  Add(1, 8, 40);
  Add(2, 8, 40);
  const StepPlan plan = StepUntilPressure();
  EXPECT_EQ(scheduler().stats().unrefined, 1u);
  EXPECT_EQ(Unrefined(plan), "2 ");
  EXPECT_EQ(scheduler().stats().preemptions, 0u);
  for (const StepItem& item : plan.items) {
    for (const KvPage& page : item.pages) {
      if (item.unrefined) {
        EXPECT_EQ(page.refinement, kNoPage);
        EXPECT_NE(page.key_tier, KvTier::kFresh);
      }
    }
  }
}

TEST_F(ElasticTest, ALowerPriorityGivesUpItsRefinementsBeforeAYoungerSequence) {
  options_.arena.slabs = 15;
  Add(1, 11, 40);
  Add(2, 8, 40, -1);
  Step();
  Add(3, 8, 40);  // the youngest
  const StepPlan plan = StepUntilPressure();
  EXPECT_EQ(scheduler().stats().unrefined, 1u);
  EXPECT_EQ(Unrefined(plan), "2 ");
}

TEST_F(ElasticTest, NobodyGivesThemUpWhereTheOperatorDidNotAllowIt) {
  options_.elastic = false;
  Add(1, 8, 40);
  Add(2, 8, 40);
  const StepPlan plan = StepUntilPressure();
  EXPECT_EQ(scheduler().stats().unrefined, 0u);
  EXPECT_EQ(Ids(plan.preempted), IdList{2});
}

TEST_F(ElasticTest, ExactSequencesHaveNoneToGiveUp) {
  options_.arena.slabs = 13;
  SequenceSpec exact = Spec(1, 4, 20);
  exact.precision = KvPrecision::kExact;
  ASSERT_TRUE(scheduler().Add(exact).ok());
  SequenceSpec other = Spec(2, 4, 20);
  other.precision = KvPrecision::kExact;
  ASSERT_TRUE(scheduler().Add(other).ok());
  const StepPlan plan = StepUntilPressure();
  EXPECT_EQ(Ids(plan.preempted), IdList{2});
  EXPECT_EQ(scheduler().stats().unrefined, 0u);
}

TEST_F(ElasticTest, APreemptedSequenceIsComputedAgainWithTheSameTokensUnrefined) {
  Add(1, 8, 60);
  Add(2, 8, 60);
  const StepPlan plan = StepUntilPressure();
  ASSERT_EQ(Unrefined(plan), "2 ");
  int32_t from = 0;
  for (const StepItem& item : plan.items) {
    if (item.unrefined) from = item.begin;
  }
  const StepPlan preemption = StepUntilPreemption();
  const uint64_t gave_up = scheduler().stats().unrefined;
  ASSERT_EQ(Ids(preemption.preempted), IdList{2});
  Cancel(1);
  int32_t next = 0;
  while (!scheduler().idle()) {
    for (const StepItem& item : Step().items) {
      EXPECT_EQ(item.begin, next);
      next = item.begin + item.count;
      EXPECT_EQ(item.unrefined, item.begin >= from);
      EXPECT_TRUE(item.unrefined || next <= from) << "an item reads its pages in two ways";
    }
  }
  EXPECT_EQ(next, 67);
  EXPECT_EQ(scheduler().stats().unrefined, gave_up);
}

}  // namespace
}  // namespace asymserve
