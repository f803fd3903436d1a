#include "engine/quality/linear_algebra.h"

#include <gtest/gtest.h>

#include <cmath>

#include "engine/base/philox.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

SquareMatrix Random(int32_t n, uint64_t seed) {
  SquareMatrix matrix(n);
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    matrix.values[i] = PhiloxUniform(seed, i) - 0.5;
  }
  return matrix;
}

/// Positive definite, with eigenvalues over about eight decades.
SquareMatrix RandomCovariance(int32_t n, uint64_t seed) {
  SquareMatrix a = Random(n, seed);
  for (int32_t i = 0; i < n; ++i) {
    for (int32_t j = 0; j < n; ++j) a.at(i, j) *= std::pow(10.0, -4.0 * j / n);
  }
  return Product(a, Transpose(a));
}

double LargestDifference(const SquareMatrix& a, const SquareMatrix& b) {
  double worst = 0;
  for (size_t i = 0; i < a.values.size(); ++i) {
    worst = std::max(worst, std::abs(a.values[i] - b.values[i]));
  }
  return worst;
}

SquareMatrix Identity(int32_t n) {
  SquareMatrix identity(n);
  for (int32_t i = 0; i < n; ++i) identity.at(i, i) = 1;
  return identity;
}

TEST(LinearAlgebraTest, MultipliesAndTransposes) {
  SquareMatrix a(2);
  a.values = {1, 2, 3, 4};
  SquareMatrix b(2);
  b.values = {5, 6, 7, 8};
  EXPECT_EQ(Product(a, b).values, (std::vector<double>{19, 22, 43, 50}));
  EXPECT_EQ(Transpose(a).values, (std::vector<double>{1, 3, 2, 4}));
}

TEST(LinearAlgebraTest, CholeskyFactorIsLowerAndGivesTheMatrixBack) {
  for (const int32_t n : {1, 2, 8, 64, 128}) {
    const SquareMatrix m = RandomCovariance(n, 3);
    const auto a = Cholesky(m);
    ASSERT_THAT(a, IsOk());
    for (int32_t i = 0; i < n; ++i) {
      EXPECT_GT(a->at(i, i), 0);
      for (int32_t j = i + 1; j < n; ++j) ASSERT_EQ(a->at(i, j), 0);
    }
    EXPECT_LT(LargestDifference(Product(*a, Transpose(*a)), m), 1e-13) << n;
  }
}

TEST(LinearAlgebraTest, CholeskyNamesThePivotThatIsNotPositive) {
  SquareMatrix m = Identity(4);
  m.at(2, 2) = -1;
  EXPECT_THAT(Cholesky(m), FailsWith(absl::StatusCode::kInvalidArgument, "pivot 2 is -1"));
  m.at(2, 2) = 0;
  EXPECT_FALSE(Cholesky(m).ok());
  m.at(2, 2) = std::nan("");
  EXPECT_FALSE(Cholesky(m).ok());
}

TEST(LinearAlgebraTest, EigenvectorsAreOrthonormalAndGiveTheMatrixBack) {
  for (const int32_t n : {1, 2, 8, 64, 128}) {
    const SquareMatrix m = RandomCovariance(n, 5);
    const Eigensystem system = SymmetricEigensystem(m);
    const SquareMatrix& u = system.vectors;
    EXPECT_LT(LargestDifference(Product(Transpose(u), u), Identity(n)), 1e-12) << n;
    SquareMatrix scaled = u;
    for (int32_t i = 0; i < n; ++i) {
      for (int32_t j = 0; j < n; ++j) scaled.at(i, j) *= system.values[static_cast<size_t>(j)];
    }
    EXPECT_LT(LargestDifference(Product(scaled, Transpose(u)), m), 1e-12) << n;
    for (size_t j = 1; j < system.values.size(); ++j) {
      EXPECT_GE(system.values[j - 1], system.values[j]);
    }
  }
}

TEST(LinearAlgebraTest, EigenvectorsOfAKnownMatrixHaveTheirLargestComponentPositive) {
  SquareMatrix m(2);
  m.values = {2, -1, -1, 2};  // 3 for (1, -1), 1 for (1, 1)
  const Eigensystem system = SymmetricEigensystem(m);
  EXPECT_NEAR(system.values[0], 3, 1e-14);
  EXPECT_NEAR(system.values[1], 1, 1e-14);
  EXPECT_NEAR(std::abs(system.vectors.at(0, 0)), std::sqrt(0.5), 1e-14);
  EXPECT_NEAR(system.vectors.at(0, 0), -system.vectors.at(1, 0), 1e-14);
  EXPECT_NEAR(system.vectors.at(0, 1), std::sqrt(0.5), 1e-14);
  EXPECT_NEAR(system.vectors.at(1, 1), std::sqrt(0.5), 1e-14);
}

TEST(LinearAlgebraTest, EigenvaluesOfADiagonalMatrixAreSorted) {
  SquareMatrix m(3);
  m.at(0, 0) = 1;
  m.at(1, 1) = 4;
  m.at(2, 2) = 2;
  const Eigensystem system = SymmetricEigensystem(m);
  EXPECT_EQ(system.values, (std::vector<double>{4, 2, 1}));
  EXPECT_EQ(system.vectors.values, (std::vector<double>{0, 0, 1, 1, 0, 0, 0, 1, 0}));
}

}  // namespace
}  // namespace asymserve
