#include "bench/sched/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace asymserve {
namespace {

TEST(WorkloadTest, PoissonArrivalsHaveTheRateAndTheSpreadOfExponentialIntervals) {
  constexpr int64_t kCount = 20'000;
  const Workload workload = PoissonWorkload(50, kCount, {3, 7}, {1, 1}, 9);
  ASSERT_EQ(workload.requests.size(), static_cast<size_t>(kCount));
  EXPECT_NEAR(workload.offered_per_second(), 50, 1.5);
  int64_t short_ones = 0, prompts = 0;
  for (size_t i = 1; i < workload.requests.size(); ++i) {
    const TimeUs gap = workload.requests[i].arrival - workload.requests[i - 1].arrival;
    EXPECT_GE(gap, 0);
    short_ones += gap < 20'000 ? 1 : 0;  // the mean: 1 - 1/e of all
    const int32_t prompt = workload.requests[i].prompt_tokens;
    EXPECT_TRUE(prompt >= 3 && prompt <= 7);
    prompts += prompt;
  }
  EXPECT_NEAR(static_cast<double>(short_ones) / kCount, 0.632, 0.015);
  EXPECT_NEAR(static_cast<double>(prompts) / kCount, 5, 0.05);
}

TEST(WorkloadTest, ASeedGivesTheSameRequestsAndARateOnlyStretchesThem) {
  const Workload one = PoissonWorkload(10, 100, {1, 9}, {1, 9}, 3);
  EXPECT_EQ(one.requests, PoissonWorkload(10, 100, {1, 9}, {1, 9}, 3).requests);
  EXPECT_NE(one.requests, PoissonWorkload(10, 100, {1, 9}, {1, 9}, 4).requests);
  const Workload twice = PoissonWorkload(20, 100, {1, 9}, {1, 9}, 3);
  for (size_t i = 0; i < 100; ++i) {
    EXPECT_EQ(one.requests[i].prompt_tokens, twice.requests[i].prompt_tokens);
    EXPECT_NEAR(static_cast<double>(one.requests[i].arrival),
                2.0 * static_cast<double>(twice.requests[i].arrival), 2);
  }
}

TEST(WorkloadTest, SpeedupDividesTheTimesOfATrace) {
  const Workload workload = TraceWorkload({{0, 5, 6}, {3'000'000, 7, 8}}, 1.5);
  EXPECT_EQ(workload.requests, (std::vector<SimRequest>{{0, 5, 6, 0}, {2'000'000, 7, 8, 0}}));
  EXPECT_DOUBLE_EQ(workload.offered_per_second(), 0.5);
}

TEST(WorkloadTest, WhatIsOverTheContextIsClippedOrDroppedAndCounted) {
  const std::vector<TraceRow> rows = {{0, 60, 40}, {1, 60, 41}, {2, 99, 5}, {3, 100, 1}};
  Workload clipped = TraceWorkload(rows, 1);
  FitToContext(100, true, clipped);
  EXPECT_EQ(clipped.requests,
            (std::vector<SimRequest>{{0, 60, 40, 0}, {1, 60, 40, 0}, {2, 99, 1, 0}}));
  EXPECT_EQ(clipped.clipped, 2);
  EXPECT_EQ(clipped.dropped, 1);
  Workload dropped = TraceWorkload(rows, 1);
  FitToContext(100, false, dropped);
  EXPECT_EQ(dropped.requests, (std::vector<SimRequest>{{0, 60, 40, 0}}));
  EXPECT_EQ(dropped.clipped, 0);
  EXPECT_EQ(dropped.dropped, 3);
}

TEST(WorkloadTest, TenantsGetTheirSharesOfTheRequests) {
  Workload workload = PoissonWorkload(1, 10'000, {1, 1}, {1, 1}, 5);
  DrawTenants({6, 1, 3}, 5, workload);
  std::vector<int> counts(3);
  for (const SimRequest& request : workload.requests)
    ++counts.at(static_cast<size_t>(request.tenant));
  EXPECT_NEAR(counts[0], 6000, 200);
  EXPECT_NEAR(counts[1], 1000, 120);
  EXPECT_NEAR(counts[2], 3000, 200);
}

}  // namespace
}  // namespace asymserve
