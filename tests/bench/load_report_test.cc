#include "bench/serve/load_report.h"

#include <gtest/gtest.h>

#include <numeric>

namespace asymserve::load {
namespace {

CallResult Completed(double planned, double first_token, double per_token, int32_t tokens = 11) {
  CallResult call;
  call.planned = planned;
  call.first_token = first_token;
  call.last_token = first_token + per_token * (tokens - 1);
  call.total = call.last_token;
  call.generated_tokens = tokens;
  call.code = grpc::StatusCode::OK;
  call.outcome = Outcome::kCompleted;
  return call;
}

TEST(LoadReportTest, APercentileIsTheLeastValueThatItsShareDoesNotExceed) {
  std::vector<double> values(100);
  std::iota(values.rbegin(), values.rend(), 1);  // 100 .. 1
  const Spread spread = SpreadOf(values);
  EXPECT_EQ(spread.count, 100);
  EXPECT_EQ(spread.p50, 50);
  EXPECT_EQ(spread.p90, 90);
  EXPECT_EQ(spread.p99, 99);
  EXPECT_EQ(spread.max, 100);
  EXPECT_EQ(SpreadOf({7}).p99, 7);
  EXPECT_EQ(SpreadOf({}).count, 0);
}

TEST(LoadReportTest, OnlyCompletedCallsWithinBothLimitsAndWithTheRightTextAreGood) {
  Limits limits;
  std::vector<CallResult> calls = {Completed(1, 1.9, 0.09), Completed(2, 2.1, 0.09),
                                   Completed(3, 1.9, 0.11), Completed(4, 0.1, 0, 1),
                                   Completed(5, 0.1, 0.01)};
  calls[4].wrong_text = true;
  CallResult refused;
  refused.planned = 6;
  refused.outcome = Outcome::kRefused;
  refused.total = 0.001;
  calls.push_back(refused);
  const LoadSummary summary = Summarize(calls, limits, {0, 10});
  EXPECT_EQ(summary.offered, 6);
  EXPECT_EQ(summary.outcomes, (std::array<int64_t, 5>{5, 1, 0, 0, 0}));
  EXPECT_EQ(summary.good, 2);
  EXPECT_EQ(summary.good_tokens, 12);
  EXPECT_EQ(summary.first_token_missed, 1);
  EXPECT_EQ(summary.per_token_missed, 1);
  EXPECT_EQ(summary.wrong_texts, 1);
  EXPECT_EQ(summary.first_token.count, 5);
  EXPECT_EQ(summary.per_token.count, 4);
  EXPECT_EQ(summary.refusal.p99, 0.001);
  EXPECT_DOUBLE_EQ(summary.PerSecond(summary.good), 0.2);
}

TEST(LoadReportTest, ArrivalsOutsideTheWindowDoNotCount) {
  const std::vector<CallResult> calls = {Completed(4.9, 0.1, 0.01), Completed(5, 0.1, 0.01),
                                         Completed(9.95, 0.1, 0.01), Completed(10, 0.1, 0.01)};
  const LoadSummary summary = Summarize(calls, {}, {5, 10});
  EXPECT_EQ(summary.offered, 2);
  EXPECT_DOUBLE_EQ(summary.PerSecond(summary.offered), 0.4);
  // The one of 4.9 ends at 5.1, that of 9.95 after the window.
  EXPECT_EQ(CompletedIn(calls, {5, 10}), 2);
}

}  // namespace
}  // namespace asymserve::load
