#include "engine/quality/matrix_product.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/base/philox.h"

namespace asymserve {
namespace {

std::vector<float> Random(int64_t count, uint64_t seed) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) {
    values.push_back(static_cast<float>(PhiloxUniform(seed, static_cast<uint64_t>(i)) - 0.4));
  }
  return values;
}

/// a [m][k] b [k][n], each sum in order of k.
std::vector<float> InOrder(const std::vector<float>& a, const std::vector<float>& b, int64_t m,
                           int64_t k, int64_t n) {
  std::vector<float> out;
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t col = 0; col < n; ++col) {
      float sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        sum += a[static_cast<size_t>(row * k + i)] * b[static_cast<size_t>(i * n + col)];
      }
      out.push_back(sum);
    }
  }
  return out;
}

TEST(MatrixProductTest, SumsInOrderBitForBitWhateverTheShape) {
  for (const int64_t m : {1, 7, 8, 64, 67}) {
    for (const int64_t n : {1, 31, 32, 80}) {
      const int64_t k = 37;
      const std::vector<float> a = Random(m * k, 1);
      const std::vector<float> b = Random(k * n, 2);
      PackedMatrix packed;
      packed.Pack(b.data(), k, n, n);
      std::vector<float> out(static_cast<size_t>(m * n));
      Multiply(a.data(), m, k, packed, /*add=*/false, out.data(), n);
      EXPECT_EQ(out, InOrder(a, b, m, k, n)) << m << " x " << n;
    }
  }
}

TEST(MatrixProductTest, ATransposedFactorGivesTheSame) {
  const int64_t m = 9, k = 24, n = 40;
  const std::vector<float> a = Random(m * k, 1);
  const std::vector<float> b = Random(k * n, 2);
  std::vector<float> turned(b.size());
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t col = 0; col < n; ++col) {
      turned[static_cast<size_t>(col * k + i)] = b[static_cast<size_t>(i * n + col)];
    }
  }
  PackedMatrix packed;
  packed.PackTransposed(turned.data(), k, n, k);
  std::vector<float> out(static_cast<size_t>(m * n));
  Multiply(a.data(), m, k, packed, /*add=*/false, out.data(), n);
  EXPECT_EQ(out, InOrder(a, b, m, k, n));
}

TEST(MatrixProductTest, AddsToRowsThatAreApartAndLeavesWhatIsBetween) {
  const int64_t m = 3, k = 5, n = 33, stride = 50;
  const std::vector<float> a = Random(m * k, 1);
  const std::vector<float> b = Random(k * n, 2);
  PackedMatrix packed;
  packed.Pack(b.data(), k, n, n);
  std::vector<float> out(static_cast<size_t>(m * stride), 7.0f);
  Multiply(a.data(), m, k, packed, /*add=*/true, out.data(), stride);
  const std::vector<float> product = InOrder(a, b, m, k, n);
  for (int64_t row = 0; row < m; ++row) {
    for (int64_t col = 0; col < stride; ++col) {
      const float added = col < n ? product[static_cast<size_t>(row * n + col)] : 0.0f;
      EXPECT_EQ(out[static_cast<size_t>(row * stride + col)], 7.0f + added);
    }
  }
}

}  // namespace
}  // namespace asymserve
