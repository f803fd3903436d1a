#include "config/scalar.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace asymserve {
namespace {

TEST(ScalarTest, IntegersAreDecimalAndFitInThirtyTwoBits) {
  EXPECT_EQ(ParseInt32("2147483647"), INT32_MAX);
  EXPECT_EQ(ParseInt32("-2147483648"), INT32_MIN);
  EXPECT_EQ(ParseInt32("007"), 7);
  for (const char* text : {"", "-", "+1", " 1", "1 ", "1.0", "1e3", "0x1", "2147483648", "one"}) {
    EXPECT_EQ(ParseInt32(text), std::nullopt) << text;
  }
}

TEST(ScalarTest, NumbersAreFinite) {
  EXPECT_EQ(ParseDouble("0.5"), 0.5);
  EXPECT_EQ(ParseDouble("1e3"), 1000.0);
  EXPECT_EQ(ParseDouble("-2"), -2.0);
  for (const char* text : {"", "inf", "nan", "-inf", "1e999", "0.5s", " 1", "1,5"}) {
    EXPECT_EQ(ParseDouble(text), std::nullopt) << text;
  }
}

TEST(ScalarTest, BooleansAreTrueOrFalseAndNothingElse) {
  EXPECT_EQ(ParseBool("true"), true);
  EXPECT_EQ(ParseBool("false"), false);
  for (const char* text : {"", "True", "yes", "on", "1", "no"}) {
    EXPECT_EQ(ParseBool(text), std::nullopt) << text;
  }
}

TEST(ScalarTest, SizesAreBytesOrBinaryUnits) {
  EXPECT_EQ(ParseSize("0"), 0);
  EXPECT_EQ(ParseSize("12345"), 12345);
  EXPECT_EQ(ParseSize("3KiB"), 3 << 10);
  EXPECT_EQ(ParseSize("512MiB"), 512 << 20);
  EXPECT_EQ(ParseSize("2GiB"), int64_t{2} << 30);
  EXPECT_EQ(ParseSize("8388607TiB"), int64_t{8388607} << 40);
  for (const char* text : {"", "MiB", "-1", "-1MiB", "1 MiB", "1MB", "1M", "1mib", "1.5GiB",
                           "8388608TiB", "9223372036854775808"}) {
    EXPECT_EQ(ParseSize(text), std::nullopt) << text;
  }
}

TEST(ScalarTest, AFormattedSizeReadsBackAsItself) {
  EXPECT_EQ(FormatSize(512 << 20), "512MiB");
  EXPECT_EQ(FormatSize(1000), "1000");
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1023}, int64_t{1024}, int64_t{1536},
                              int64_t{3} << 40, INT64_MAX}) {
    EXPECT_EQ(ParseSize(FormatSize(bytes)), bytes);
  }
}

TEST(ScalarTest, AddressesHaveAHostAndAPort) {
  for (const char* text : {"127.0.0.1:0", "localhost:65535", "[::]:50051", "a-b.c:1"}) {
    EXPECT_TRUE(IsAddress(text)) << text;
  }
  for (const char* text : {"", ":", ":1", "localhost", "localhost:", "localhost:65536", "::1:80",
                           "[]:1", "[::1:80", "a b:1", "http://a:1", "a:-1", "a:+1", "a:1 "}) {
    EXPECT_FALSE(IsAddress(text)) << text;
  }
}

}  // namespace
}  // namespace asymserve
