#include "engine/kv/plane_inverse.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/base/philox.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

TEST(PlaneInverseTest, TimesTheMatrixIsTheIdentity) {
  for (const int32_t n : {1, 2, 7, 64, 136}) {
    std::vector<float> a;
    for (int32_t i = 0; i < n * n; ++i) {
      a.push_back(static_cast<float>(PhiloxUniform(1, static_cast<uint64_t>(i)) - 0.5));
    }
    a[0] = 0;  // the first pivot must be another row's
    if (n == 1) a[0] = 3;
    const auto inverse = InverseOf(a, n);
    ASSERT_THAT(inverse, IsOk());
    const auto size = static_cast<size_t>(n);
    double worst = 0;
    for (size_t i = 0; i < size; ++i) {
      for (size_t j = 0; j < size; ++j) {
        double sum = i == j ? -1 : 0;
        double scale = 0;
        for (size_t k = 0; k < size; ++k) {
          const double product =
              static_cast<double>(a[i * size + k]) * static_cast<double>((*inverse)[k * size + j]);
          sum += product;
          scale += std::abs(product);
        }
        worst = std::max(worst, std::abs(sum) / std::max(scale, 1.0));
      }
    }
    EXPECT_LT(worst, 1e-7) << n;
  }
}

TEST(PlaneInverseTest, IsExactWhereItCanBe) {
  const auto inverse = InverseOf(std::vector<float>{0, 2, -4, 0}, 2);
  ASSERT_THAT(inverse, IsOk());
  EXPECT_EQ(*inverse, (std::vector<float>{0, -0.25f, 0.5f, 0}));
}

TEST(PlaneInverseTest, RefusesWhatHasNoInverse) {
  EXPECT_THAT(InverseOf(std::vector<float>(16), 4), FailsWith(kInvalid, "singular"));
  EXPECT_THAT(InverseOf(std::vector<float>{1, 2, 2, 4}, 2), FailsWith(kInvalid, "singular"));
  EXPECT_THAT(InverseOf(std::vector<float>{1, 0, 0, std::nanf("")}, 2),
              FailsWith(kInvalid, "singular"));
  EXPECT_THAT(InverseOf(std::vector<float>{1e-40f}, 1),
              FailsWith(kInvalid, "leaves float's range"));
}

}  // namespace
}  // namespace asymserve
