#include "server/key_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace asymserve::testing {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

class KeyMeterTest : public ::testing::Test {
 protected:
  /// Empty: admitted.
  static std::string Enter(KeyMeter& meter, KeyMeter::Time now, bool generates = true) {
    const auto exceeded = meter.Enter(generates, now);
    if (!exceeded) return "";
    return std::string(kRejectionNames[static_cast<size_t>(exceeded->reason)]) + " " +
           std::to_string(exceeded->retry_after.count());
  }

  const KeyMeter::Time start_ = std::chrono::steady_clock::now();
};

TEST_F(KeyMeterTest, WithoutLimitsEverythingIsAdmitted) {
  KeyMeter meter({}, start_);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(Enter(meter, start_), "");
}

TEST_F(KeyMeterTest, ASecondsWorthOfRequestsMayComeAtOnceAndThenTheirRate) {
  KeyMeter meter({.requests_per_second = 4}, start_);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "key_requests 250");
  EXPECT_EQ(Enter(meter, start_ + milliseconds(249)), "key_requests 1");
  EXPECT_EQ(Enter(meter, start_ + milliseconds(250)), "");
  EXPECT_EQ(Enter(meter, start_ + milliseconds(250)), "key_requests 250");
  // A pause gives no more than that second's worth.
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Enter(meter, start_ + seconds(100)), "");
  EXPECT_EQ(Enter(meter, start_ + seconds(100)), "key_requests 250");
}

TEST_F(KeyMeterTest, ARateBelowOneASecondAdmitsOneAtFirst) {
  KeyMeter meter({.requests_per_second = 0.5}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "key_requests 2000");
  EXPECT_EQ(Enter(meter, start_ + seconds(2)), "");
}

TEST_F(KeyMeterTest, ConcurrentCallsAreAdmittedAgainOnceOneHasEnded) {
  KeyMeter meter({.concurrent = 2}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "key_concurrent 1000");
  meter.Leave(0, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "key_concurrent 1000");
}

TEST_F(KeyMeterTest, TokensTakenAreWaitedForBeforeTheNextCallThatGenerates) {
  KeyMeter meter({.tokens_per_minute = 600}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_), "");
  meter.Leave(500, start_);
  EXPECT_EQ(Enter(meter, start_), "") << "100 are left";
  meter.Leave(199, start_);
  EXPECT_EQ(Enter(meter, start_), "key_tokens 10000") << "99 too many, at 10 a second";
  EXPECT_EQ(Enter(meter, start_, false), "");
  EXPECT_EQ(Enter(meter, start_ + seconds(10)), "");
  meter.Leave(0, start_ + seconds(1000));
  meter.Leave(600, start_ + seconds(1000));
  EXPECT_EQ(Enter(meter, start_ + seconds(1000)), "key_tokens 100") << "a minute's at most";
}

TEST_F(KeyMeterTest, ARefusedCallTakesNothing) {
  KeyMeter meter({.requests_per_second = 1, .concurrent = 1}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  EXPECT_EQ(Enter(meter, start_ + seconds(1)), "key_concurrent 1000");
  meter.Leave(0, start_ + seconds(1));
  EXPECT_EQ(Enter(meter, start_ + seconds(1)), "");
}

TEST_F(KeyMeterTest, NewLimitsDoNotGiveBackWhatWasUsed) {
  KeyMeter meter({.requests_per_second = 1, .concurrent = 1}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
  meter.Configure({.requests_per_second = 10, .concurrent = 1}, start_);
  EXPECT_EQ(Enter(meter, start_), "key_concurrent 1000");
  meter.Configure({.requests_per_second = 10}, start_);
  EXPECT_EQ(Enter(meter, start_), "key_requests 100");
  meter.Configure({}, start_);
  EXPECT_EQ(Enter(meter, start_), "");
}

TEST_F(KeyMeterTest, AUseLeavesOnceWhateverHappensToIt) {
  const auto meter = std::make_shared<KeyMeter>(ApiKeyLimits{.concurrent = 1}, start_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(Enter(*meter, start_), "");
    KeyUse use(meter);
    EXPECT_NE(Enter(*meter, start_), "");
    KeyUse moved(std::move(use));
    if (i == 1) moved.End(3);
  }
  EXPECT_EQ(Enter(*meter, start_), "");
  EXPECT_NE(Enter(*meter, start_), "");
}

}  // namespace
}  // namespace asymserve::testing
