#include "tests/support/random_weights.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/dequantize.h"

namespace asymserve::testing {
namespace {

constexpr DType kTypes[] = {DType::kF32,  DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ4K, DType::kQ5K,  DType::kQ6K};

std::vector<float> Row(DType dtype, uint64_t seed, int64_t row) {
  constexpr int64_t kElements = 4096;
  const std::string bytes = RandomRow(dtype, kElements, 0, 0.125f, seed, "w", row);
  EXPECT_EQ(static_cast<int64_t>(bytes.size()), RowBytes(dtype, kElements));
  return DequantizeRow(dtype, reinterpret_cast<const std::byte*>(bytes.data()), kElements);
}

TEST(RandomWeightsTest, HaveTheDemandedSpreadInEveryType) {
  for (const DType dtype : kTypes) {
    SCOPED_TRACE(Info(dtype).name);
    double sum = 0;
    double squares = 0;
    const std::vector<float> values = Row(dtype, 7, 0);
    for (const float value : values) {
      sum += value;
      squares += static_cast<double>(value) * value;
    }
    const auto n = static_cast<double>(values.size());
    EXPECT_NEAR(sum / n, 0, 0.02);
    EXPECT_NEAR(std::sqrt(squares / n), 0.125, 0.02);
  }
}

TEST(RandomWeightsTest, DependOnSeedAndRowAndNothingElse) {
  for (const DType dtype : kTypes) {
    SCOPED_TRACE(Info(dtype).name);
    EXPECT_EQ(Row(dtype, 7, 3), Row(dtype, 7, 3));
    EXPECT_NE(Row(dtype, 7, 3), Row(dtype, 7, 4));
    EXPECT_NE(Row(dtype, 7, 3), Row(dtype, 8, 3));
  }
}

}  // namespace
}  // namespace asymserve::testing
