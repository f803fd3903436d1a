#include "bench/serve/load_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace asymserve::load {
namespace {

using ::testing::HasSubstr;

PlanOptions Options() {
  PlanOptions options;
  options.rate = 50;
  options.seconds = 100;
  options.context_tokens = 1000;
  return options;
}

TEST(LoadPlanTest, PoissonArrivalsFillTheTimeAtTheRateAndUseEveryText) {
  const auto plan = MakeLoadPlan(Options());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_NEAR(static_cast<double>(plan->arrivals.size()), 5000, 300);
  EXPECT_LT(plan->arrivals.back().at, 100'000'000);
  EXPECT_GT(plan->arrivals.back().at, 99'000'000);
  std::vector<int> used(plan->texts.size());
  for (const Arrival& arrival : plan->arrivals) ++used.at(arrival.text);
  for (size_t i = 0; i < used.size(); ++i) EXPECT_GT(used[i], 90) << "text " << i;
}

TEST(LoadPlanTest, TextsDoNotDependOnTheRate) {
  PlanOptions options = Options();
  const auto one = MakeLoadPlan(options);
  options.rate = 7;
  options.seconds = 11;
  const auto other = MakeLoadPlan(options);
  ASSERT_TRUE(one.ok() && other.ok());
  EXPECT_EQ(one->texts, other->texts);
  for (const TextLength& text : one->texts) {
    EXPECT_TRUE(text.prompt_tokens >= 32 && text.prompt_tokens <= 512) << text.prompt_tokens;
    EXPECT_TRUE(text.output_tokens >= 32 && text.output_tokens <= 256) << text.output_tokens;
  }
}

TEST(LoadPlanTest, ATraceIsStretchedToTheRateAndItsRowsGetTheNearestText) {
  PlanOptions options = Options();
  options.rate = 2;
  options.seconds = 2;
  options.length_scale = 0.5;
  options.trace_skip = 1;
  options.texts = 64;  // both kinds of rows are drawn
  options.trace = {
      {0, 7, 7}, {1'000, 40, 20}, {1'100, 400, 200}, {1'400, 40, 20}, {1'700, 400, 200}};
  const auto plan = MakeLoadPlan(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_EQ(plan->arrivals.size(), 4u);
  const std::vector<TimeUs> at = {0, 214'286, 857'143, 1'500'000};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(plan->arrivals[i].at, at[i]);
    const TextLength wanted = i % 2 == 0 ? TextLength{20, 10} : TextLength{200, 100};
    EXPECT_EQ(plan->texts.at(plan->arrivals[i].text), wanted) << "arrival " << i;
  }
}

TEST(LoadPlanTest, ATextOverTheContextIsClippedOrRefused) {
  PlanOptions options = Options();
  options.prompt = {90, 90};
  options.output = {50, 50};
  options.context_tokens = 100;
  const auto plan = MakeLoadPlan(options);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->texts.front(), (TextLength{90, 10}));
  options.context_tokens = 91;
  EXPECT_THAT(std::string(MakeLoadPlan(options).status().message()),
              HasSubstr("a prompt of 90 tokens leaves no room for two more in a context of 91"));
}

TEST(LoadPlanTest, AFewCallsOfAClosedLoopHaveTheTextsOfAllArrivals) {
  std::vector<Arrival> arrivals;
  for (size_t i = 0; i < 1000; ++i) arrivals.push_back({static_cast<TimeUs>(i), i});
  for (const int64_t first : {0, 777}) {
    std::vector<int> tenths(10);
    for (int64_t call = first; call < first + 60; ++call) {
      ++tenths.at(TextOfCall(arrivals, call) / 100);
    }
    EXPECT_THAT(tenths, ::testing::Each(::testing::AllOf(::testing::Ge(5), ::testing::Le(7))));
  }
  EXPECT_EQ(TextOfCall({{0, 3}}, 1'000'000), 3u);
}

TEST(LoadPlanTest, ATraceWithTooFewRowsSaysHowManyAreMissing) {
  PlanOptions options = Options();
  options.trace = {{0, 7, 7}, {1'000, 40, 20}};
  EXPECT_THAT(std::string(MakeLoadPlan(options).status().message()),
              HasSubstr("the trace has 2 rows, 0 are skipped and 5000 needed"));
}

}  // namespace
}  // namespace asymserve::load
