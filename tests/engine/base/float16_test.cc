#include "engine/base/float16.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

constexpr uint16_t kHalfInfinity = 0x7C00;

// IEEE 754 binary16 by its definition, in doubles.
double HalfByDefinition(uint16_t half) {
  const int exponent = (half >> 10) & 31;
  const int mantissa = half & 0x3FF;
  const double sign = (half & 0x8000) != 0 ? -1 : 1;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

// The nearest half of a finite value, ties to even, as a double.
double NearestHalf(double value) {
  if (std::fabs(value) >= 65520) return std::copysign(HUGE_VAL, value);
  const int exponent = std::max(value == 0 ? -14 : std::ilogb(value), -14);
  const double step = std::ldexp(1, exponent - 10);
  return std::nearbyint(value / step) * step;
}

TEST(Float16Test, EveryHalfHasTheValueOfItsDefinition) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double expected = HalfByDefinition(half);
    const float got = HalfToFloat(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(got)) << bits;
      continue;
    }
    ASSERT_EQ(got, expected) << bits;
    ASSERT_EQ(std::signbit(got), (half & 0x8000) != 0) << bits;
  }
}

TEST(Float16Test, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const bool is_nan = (half & 0x7FFF) > kHalfInfinity;
    const uint16_t expected = is_nan ? static_cast<uint16_t>(half | 0x200) : half;  // quiet
    ASSERT_EQ(FloatToHalf(HalfToFloat(half)), expected) << bits;
  }
}

TEST(Float16Test, RoundsToNearestAndTiesToEvenBetweenAllNeighbours) {
  for (uint16_t low = 0; low < kHalfInfinity; ++low) {
    const auto high = static_cast<uint16_t>(low + 1);
    const double upper = high == kHalfInfinity ? 65536.0 : HalfByDefinition(high);
    const auto middle = static_cast<float>((HalfByDefinition(low) + upper) / 2);
    const uint16_t even = (low & 1) == 0 ? low : high;
    for (const uint16_t sign : {0, 0x8000}) {
      const float tie = sign != 0 ? -middle : middle;
      ASSERT_EQ(FloatToHalf(tie), even | sign) << low;
      ASSERT_EQ(FloatToHalf(std::nextafter(tie, 0.0f)), low | sign) << low;
      ASSERT_EQ(FloatToHalf(std::nextafter(tie, tie * 2)), high | sign) << low;
    }
  }
}

TEST(Float16Test, RoundsRandomBitPatternsLikeTheReference) {
  constexpr uint32_t kSeed = 16;
  std::mt19937 random(kSeed);
  for (int i = 0; i < 1'000'000; ++i) {
    const auto value = std::bit_cast<float>(static_cast<uint32_t>(random()));
    if (std::isnan(value) || std::isinf(value)) continue;
    ASSERT_EQ(HalfToFloat(FloatToHalf(value)), NearestHalf(value))
        << "seed " << kSeed << ": " << value;
  }
}

TEST(Float16Test, KeepsSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(FloatToHalf(infinity), 0x7C00);
  EXPECT_EQ(FloatToHalf(-infinity), 0xFC00);
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7BFF);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7C00);
  EXPECT_EQ(FloatToHalf(-0.0f), 0x8000);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::numeric_limits<float>::quiet_NaN()))));
  // A signalling NaN whose payload lies in the bits that are cut off must not turn into infinity.
  EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(std::bit_cast<float>(0x7F800001u)))));
}

TEST(Float16Test, BrainFloatIsTheUpperHalfOfAFloat) {
  EXPECT_EQ(BrainToFloat(0x3F80), 1.0f);
  EXPECT_EQ(BrainToFloat(0xC049), -3.140625f);
  EXPECT_EQ(BrainToFloat(0x7F80), std::numeric_limits<float>::infinity());
  EXPECT_EQ(BrainToFloat(0x0001), 0x1p-133f);
  EXPECT_TRUE(std::isnan(BrainToFloat(0x7FC0)));
}

}  // namespace
}  // namespace asymserve
