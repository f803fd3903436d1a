#include "engine/base/philox.h"

#include <array>
#include <cmath>
#include <cstdint>
#include <set>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

using Words = std::array<uint32_t, 4>;

constexpr uint64_t Key(uint32_t k0, uint32_t k1) {
  return (uint64_t{k1} << 32) | k0;
}

// The known-answer vectors of Random123 for philox4x32 with 10 rounds.
TEST(PhiloxTest, GivesThePublishedKnownAnswers) {
  EXPECT_EQ(Philox({0, 0, 0, 0}, 0), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, ~uint64_t{0}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, Key(0xa4093822, 0x299f31d0)),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(PhiloxTest, UniformTakesTheUpper53BitsOfTheFirstTwoWords) {
  constexpr double kExpected =
      static_cast<double>((uint64_t{0x6627e8d5} << 21) | (0xe169c58du >> 11)) * 0x1p-53;
  EXPECT_EQ(PhiloxUniform(0, 0, 0), kExpected);
}

TEST(PhiloxTest, UniformDependsOnEveryBitOfItsArguments) {
  std::set<double> values = {PhiloxUniform(0, 0, 0)};
  size_t count = 1;
  for (int bit = 0; bit < 64; ++bit) {
    values.insert(PhiloxUniform(uint64_t{1} << bit, 0, 0));
    values.insert(PhiloxUniform(0, uint64_t{1} << bit, 0));
    count += 2;
    if (bit < 32) {
      values.insert(PhiloxUniform(0, 0, uint32_t{1} << bit));
      ++count;
    }
  }
  EXPECT_EQ(values.size(), count);
}

TEST(PhiloxTest, UniformIsUniformOnTheUnitInterval) {
  constexpr uint64_t kKey = 42;
  constexpr int kDraws = 100'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double u = PhiloxUniform(kKey, static_cast<uint64_t>(i));
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    sum += u;
    squares += u * u;
  }
  // Five standard deviations: of the mean sqrt(1/12/n), of the mean square sqrt(4/45/n).
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(squares / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
}

static_assert(Philox({0, 0, 0, 0}, 0)[0] == 0x6627e8d5, "usable at compile time");

}  // namespace
}  // namespace asymserve
