#include <gtest/gtest.h>

#include "server/log_rate.h"
#include "server/unread_bytes.h"

namespace asymserve {
namespace {

TEST(LogRateTest, LeavesOutWhatIsMoreThanABurstAndSaysHowMuch) {
  LogRate rate;
  const LogRate::Clock::time_point now = LogRate::Clock::now();
  for (int i = 0; i < 200; ++i) EXPECT_EQ(rate.Admit(now), 0) << i;
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(rate.Admit(now), std::nullopt) << i;
  const auto later = now + std::chrono::milliseconds(250);
  EXPECT_EQ(rate.Admit(later), 1000);
  EXPECT_EQ(rate.Admit(later), std::nullopt);
  const auto much_later = later + std::chrono::hours(1);
  EXPECT_EQ(rate.Admit(much_later), 1);
  for (int i = 0; i < 199; ++i) EXPECT_EQ(rate.Admit(much_later), 0) << i;
  EXPECT_EQ(rate.Admit(much_later), std::nullopt);
}

TEST(UnreadBytesTest, AreBoundedAndComeBack) {
  UnreadBytes unread(1'000'000);
  UnreadBytes::Share first = unread.Take(600'000);
  EXPECT_NE(first, nullptr);
  EXPECT_EQ(unread.Take(400'001), nullptr);
  const UnreadBytes::Share rest = unread.Take(400'000);
  EXPECT_NE(rest, nullptr);
  EXPECT_NE(unread.Take(UnreadBytes::kSmall), nullptr) << "small answers always go";
  EXPECT_EQ(unread.Take(UnreadBytes::kSmall + 1), nullptr);
  first.reset();
  EXPECT_NE(unread.Take(600'000), nullptr);
}

}  // namespace
}  // namespace asymserve
