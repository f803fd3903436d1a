#include "engine/sched/step_costs.h"

#include <gtest/gtest.h>

namespace asymserve {
namespace {

TEST(StepCostsTest, NothingIsKnownBeforeFourStepsHadPrefill) {
  StepCosts costs;
  EXPECT_EQ(costs.DecodeUs(8), 0);
  for (int i = 0; i < 3; ++i) costs.Observe({.prefill_tokens = 100, .duration = 5000});
  EXPECT_FALSE(costs.PrefillUs(100).has_value());
  costs.Observe({.prefill_tokens = 100, .duration = 5000});
  ASSERT_TRUE(costs.PrefillUs(100).has_value());
  EXPECT_NEAR(*costs.PrefillUs(300), 15'000, 1);
}

TEST(StepCostsTest, FindsTheLineThatStepsFollow) {
  StepCosts costs;
  for (int i = 0; i < 200; ++i) {
    const int32_t rows = 1 + i % 40;
    costs.Observe({.prefill_tokens = 0, .decode_rows = rows, .duration = 1000 + 25 * rows});
    costs.Observe(
        {.prefill_tokens = 64, .decode_rows = rows, .duration = 1000 + 25 * rows + 64 * 50});
  }
  EXPECT_NEAR(costs.DecodeUs(8), 1200, 2);
  EXPECT_NEAR(costs.DecodeUs(64), 2600, 5);
  EXPECT_NEAR(*costs.PrefillUs(1000), 50'000, 200);
}

TEST(StepCostsTest, AStepInWhichAShadowTookPartSaysNothing) {
  StepCosts costs;
  for (int i = 0; i < 10; ++i) {
    costs.Observe({.decode_rows = 4, .duration = 1000});
    costs.Observe({.decode_rows = 4, .shadow = true, .duration = 9000});
  }
  EXPECT_NEAR(costs.DecodeUs(4), 1000, 1);
}

TEST(StepCostsTest, FollowsAMachineThatBecomesFaster) {
  StepCosts costs;
  for (int i = 0; i < 100; ++i) costs.Observe({.prefill_tokens = 10, .duration = 100'000});
  for (int i = 0; i < 400; ++i) costs.Observe({.prefill_tokens = 10, .duration = 1000});
  EXPECT_LT(*costs.PrefillUs(10), 1500);
}

TEST(StepCostsTest, APrefillBesideDecodeRowsOfUnknownCostSaysNothing) {
  StepCosts costs;
  for (int i = 0; i < 10; ++i) {
    costs.Observe({.prefill_tokens = 1, .decode_rows = 100, .duration = 90'000});
  }
  EXPECT_FALSE(costs.PrefillUs(1).has_value());
}

TEST(StepCostsTest, ClocksThatGoBackwardsAndEmptyStepsChangeNothingForTheWorse) {
  StepCosts costs;
  costs.Observe({});
  for (int i = 0; i < 5; ++i) costs.Observe({.prefill_tokens = 5, .duration = -100});
  EXPECT_EQ(costs.PrefillUs(100), 0);
}

TEST(DrainRateTest, IsDeparturesOverTheTimeThatSomeWaited) {
  DrainRate rate;
  EXPECT_FALSE(rate.PerSecond().has_value());
  for (int i = 0; i < 100; ++i) rate.Observe(50'000, i % 2);
  ASSERT_TRUE(rate.PerSecond().has_value());
  EXPECT_NEAR(*rate.PerSecond(), 10, 0.1);
}

TEST(DrainRateTest, ForgetsWhatIsLongerAgoThanItsMemory) {
  DrainRate rate;
  for (int i = 0; i < 1000; ++i) rate.Observe(100'000, 10);
  for (int i = 0; i < 600; ++i) rate.Observe(100'000, 1);
  EXPECT_NEAR(*rate.PerSecond(), 10, 0.5);
}

TEST(DrainRateTest, DoesNotVanishBetweenDeparturesThatAreFarApart) {
  DrainRate rate;
  for (int departure = 0; departure < 5; ++departure) {
    rate.Observe(100'000, 1);
    for (int i = 0; i < 1200; ++i) rate.Observe(100'000, 0);
    ASSERT_TRUE(rate.PerSecond().has_value());
    EXPECT_GE(*rate.PerSecond(), 1e6 / DrainRate::kMemoryUs * 0.99);
  }
}

TEST(DrainRateTest, IsAbsentWhileNothingLeaves) {
  DrainRate rate;
  for (int i = 0; i < 100; ++i) rate.Observe(100'000, 0);
  EXPECT_FALSE(rate.PerSecond().has_value());
}

}  // namespace
}  // namespace asymserve
