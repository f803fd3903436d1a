#include "engine/quality/log_axis.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace asymserve {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::SizeIs;

TEST(LogAxisTest, EqualRatiosAreEqualDistances) {
  const LogAxis axis = {.low = 0.01, .high = 100, .begin = 400, .end = 0};
  EXPECT_THAT(axis.At(0.01), DoubleNear(400, 1e-9));
  EXPECT_THAT(axis.At(0.1), DoubleNear(300, 1e-9));
  EXPECT_THAT(axis.At(10), DoubleNear(100, 1e-9));
  EXPECT_THAT(axis.At(100), DoubleNear(0, 1e-9));
}

TEST(LogAxisTest, TheRangeHoldsAllPositiveValuesBetweenRoundNumbers) {
  const LogAxis axis = AxisAround({0.034, 0, 1.7, -3}, 0, 1);
  EXPECT_THAT(axis.low, DoubleEq(0.02));
  EXPECT_THAT(axis.high, DoubleEq(2));
  EXPECT_THAT(axis.Ticks(), ElementsAre(DoubleEq(0.02), DoubleEq(0.05), DoubleEq(0.1),
                                        DoubleEq(0.2), DoubleEq(0.5), DoubleEq(1), DoubleEq(2)));
}

TEST(LogAxisTest, RoundNumbersAreTheirOwnEnds) {
  const LogAxis axis = AxisAround({0.001, 500}, 0, 1);
  EXPECT_THAT(axis.low, DoubleEq(0.001));
  EXPECT_THAT(axis.high, DoubleEq(500));
  EXPECT_THAT(axis.Ticks(), SizeIs(18));
}

TEST(LogAxisTest, OneValueOrNoneStillHasARange) {
  const LogAxis one = AxisAround({0.5}, 0, 1);
  EXPECT_THAT(one.low, DoubleEq(0.5));
  EXPECT_THAT(one.high, DoubleEq(1));
  const LogAxis none = AxisAround({0, -1}, 3, 7);
  EXPECT_LT(none.low, none.high);
  EXPECT_EQ(none.begin, 3);
  EXPECT_EQ(none.end, 7);
}

}  // namespace
}  // namespace asymserve
