#include "engine/backend/cuda/q4_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/engine/backend/cuda/q4_fixture.h"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::kQ4Types;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Q4Weight;
using ::asymserve::testing::SameBits;

constexpr int64_t kBlock = 32;

/// x times w, in a matrix that had `before` in all elements.
std::vector<float> ProductOnce(const Matrix& x, const cuda::MatrixView& w, int64_t stride,
                               float before = std::nanf("")) {
  std::vector<float> out(static_cast<size_t>(x.rows * stride), before);
  EXPECT_EQ(cuda::Q4Product(out.data(), stride, x.row(0), x.rows, w, nullptr), cudaSuccess)
      << LaunchFault();
  return out;
}
/// The same in every order of threads.
std::vector<float> ProductOf(const Matrix& x, const cuda::MatrixView& w, int64_t stride,
                             float before = std::nanf("")) {
  return simt::SameInEveryOrder([&] { return ProductOnce(x, w, stride, before); });
}

/// A sum in the order that q4_products.h states.
float InOrder(const std::vector<float>& w, const float* x) {
  std::array<float, cuda::kQ4Strands> strands = {};
  for (size_t k = 0; k < w.size(); ++k) {
    float& strand = strands[k / kBlock % cuda::kQ4Strands];
    strand = std::fma(x[k], w[k], strand);
  }
  float sum = 0;
  for (size_t i = 0; i < strands.size(); i += 4) {
    const float four = (strands[i] + strands[i + 1]) + (strands[i + 2] + strands[i + 3]);
    sum = i == 0 ? four : sum + four;
  }
  return sum;
}

/// Expects `out` [x.rows][outputs] to be the product in doubles, as near as fp32 sums in that order
/// must be: a term is rounded once for each that its strand adds to it, and then nine times at
/// most.
void ExpectNearDoubles(const std::vector<float>& out, const Matrix& x, const FileWeight& weight,
                       int64_t outputs) {
  const int64_t strand_blocks = (x.cols / kBlock + cuda::kQ4Strands - 1) / cuda::kQ4Strands;
  const double unit = 1.001 * static_cast<double>(strand_blocks * kBlock + 9) * 0x1p-24;
  for (int64_t n = 0; n < outputs; ++n) {
    const std::vector<float> w = weight.Dequantized(n);
    for (int64_t t = 0; t < x.rows; ++t) {
      double value = 0;
      double magnitude = 0;
      for (int64_t k = 0; k < x.cols; ++k) {
        const double term = double{w[static_cast<size_t>(k)]} * x.at(t, k);
        value += term;
        magnitude += std::fabs(term);
      }
      ASSERT_NEAR(out[static_cast<size_t>(t * outputs + n)], value, unit * magnitude)
          << "row " << t << " output " << n;
    }
  }
}

struct Shape {
  int32_t rows, outputs, blocks;
};

class Q4ProductTest : public ::testing::TestWithParam<DType> {
 protected:
  DType dtype() const { return GetParam(); }
  /// Of so many blocks of 32 or, as the type needs it, a few more.
  int32_t Cols(int32_t blocks) const {
    const int32_t of_type = Info(dtype()).block_elements / static_cast<int32_t>(kBlock);
    return (blocks + of_type - 1) / of_type * of_type * static_cast<int32_t>(kBlock);
  }
};

TEST_P(Q4ProductTest, IsThatOfDoublesAndOfTheOrderThatIsStated) {
  // One block for one strand; strands of one, two and three blocks; a last tile of one row and
  // of 31.
  const Shape shapes[] = {{1, 1, 1},   {2, 33, 3},  {3, 31, 5},  {4, 64, 9},
                          {5, 7, 33},  {7, 33, 2},  {8, 32, 4},  {9, 70, 34},
                          {16, 5, 65}, {17, 65, 3}, {33, 33, 18}};
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.rows) + " rows, " + std::to_string(shape.outputs) +
                 " outputs, " + std::to_string(shape.blocks) + " blocks");
    const int32_t cols = Cols(shape.blocks);
    const FileWeight file(dtype(), shape.outputs, cols, 21);
    const Q4Weight weight(file.source());
    const Matrix x = Matrix::Random(shape.rows, cols, 22);
    const std::vector<float> out = ProductOf(x, weight.view, shape.outputs);
    ExpectNearDoubles(out, x, file, shape.outputs);
    for (int64_t n = 0; n < shape.outputs; ++n) {
      const std::vector<float> w = file.Dequantized(n);
      for (int64_t t = 0; t < x.rows; ++t) {
        ASSERT_EQ(out[static_cast<size_t>(t * shape.outputs + n)], InOrder(w, x.row(t)))
            << "row " << t << " output " << n;
      }
    }
  }
}

TEST_P(Q4ProductTest, ARowIsTheSameAloneAndAmongAnyNumberOfOthers) {
  constexpr int32_t kRows = 33;
  constexpr int32_t kOutputs = 37;
  const int32_t cols = Cols(39);
  const Q4Weight weight(FileWeight(dtype(), kOutputs, cols, 23).source());
  const Matrix x = Matrix::Random(kRows, cols, 24);
  const std::vector<float> all = ProductOnce(x, weight.view, kOutputs);
  const auto product_of = [&](int32_t first, int32_t rows) {
    Matrix some(rows, cols);
    std::copy_n(x.row(first), int64_t{rows} * cols, some.row(0));
    return ProductOnce(some, weight.view, kOutputs);
  };
  const auto expected = [&](int32_t first, int32_t rows) {
    return std::span(all).subspan(static_cast<size_t>(first) * kOutputs,
                                  static_cast<size_t>(rows) * kOutputs);
  };
  for (int32_t row = 0; row < kRows; ++row) {
    EXPECT_TRUE(SameBits(product_of(row, 1), expected(row, 1))) << "row " << row << " alone";
  }
  for (int32_t rows = 2; rows <= kRows; ++rows) {
    const int32_t first = kRows - rows;
    EXPECT_TRUE(SameBits(product_of(first, rows), expected(first, rows))) << "last " << rows;
  }
}

TEST_P(Q4ProductTest, LeavesWhatIsBetweenItsRowsAlone) {
  const int32_t cols = Cols(2);
  const Q4Weight weight(FileWeight(dtype(), 33, cols, 25).source());
  const Matrix x = Matrix::Random(11, cols, 26);
  const std::vector<float> dense = ProductOf(x, weight.view, 33);
  const std::vector<float> wide = ProductOf(x, weight.view, 40, 77.0f);
  for (size_t row = 0; row < 11; ++row) {
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(wide[row * 40 + i], i < 33 ? dense[row * 33 + i] : 77.0f) << row << ", " << i;
    }
  }
}

TEST_P(Q4ProductTest, CarriesANanOrInfinityToItsOwnRowOnly) {
  const int32_t cols = Cols(3);
  const Q4Weight weight(FileWeight(dtype(), 20, cols, 27).source());
  const Matrix clean = Matrix::Random(4, cols, 28);
  Matrix x = clean;
  x.row(1)[40 % cols] = std::nanf("");
  x.row(2)[41 % cols] = std::numeric_limits<float>::infinity();
  const std::vector<float> out = ProductOnce(x, weight.view, 20);
  const std::vector<float> expected = ProductOf(clean, weight.view, 20);
  for (size_t n = 0; n < 20; ++n) {
    EXPECT_TRUE(std::isnan(out[20 + n]));
    EXPECT_FALSE(std::isfinite(out[40 + n]));
    EXPECT_EQ(out[n], expected[n]);
    EXPECT_EQ(out[60 + n], expected[60 + n]);
  }
}

/// A row of blocks whose codes are `codes` and whose fp16 numbers are `halves` in turn.
std::vector<std::byte> RowOf(DType type, int32_t blocks, std::byte codes,
                             std::array<uint16_t, 2> halves) {
  const DTypeInfo info = Info(type);
  std::vector<std::byte> row(static_cast<size_t>(blocks * info.block_bytes), codes);
  for (int32_t block = 0; block < blocks; ++block) {
    for (size_t i = 0; i < (type == DType::kQ4_0 ? 1u : 2u); ++i) {
      const size_t at = static_cast<size_t>(block * info.block_bytes) + 2 * i;
      row[at] = static_cast<std::byte>(halves[i] & 255);
      row[at + 1] = static_cast<std::byte>(halves[i] >> 8);
    }
  }
  return row;
}

TEST_P(Q4ProductTest, ExtremeCodesAndScalesAreExact) {
  // Largest and smallest fp16 numbers of either sign, the smallest subnormal, zero of either sign.
  const std::array<uint16_t, 2> halves[] = {{0x7BFF, 0x7BFF}, {0xFBFF, 0x7BFF}, {0x0001, 0x8001},
                                            {0x8001, 0x0001}, {0x0000, 0x3C00}, {0x8000, 0x8000}};
  const int32_t cols = 2 * Info(dtype()).block_elements;
  for (const auto& pair : halves) {
    for (const auto codes : {std::byte{0xFF}, std::byte{0}, std::byte{0xF0}}) {
      const std::vector<std::byte> row = RowOf(dtype(), 2, codes, pair);
      const Q4Weight weight(WeightSource{row.data(), dtype(), 1, cols});
      Matrix x(2, cols);
      for (int32_t k = 0; k < cols; ++k) {
        x.row(0)[k] = static_cast<float>(k % 7) - 3;
        x.row(1)[k] = std::numeric_limits<float>::denorm_min();
      }
      const std::vector<float> out = ProductOnce(x, weight.view, 1);
      const std::vector<float> w = DequantizeRow(dtype(), row.data(), cols);
      EXPECT_EQ(out[0], InOrder(w, x.row(0))) << pair[0] << " " << static_cast<int>(codes);
      EXPECT_EQ(out[1], InOrder(w, x.row(1))) << pair[0] << " " << static_cast<int>(codes);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, Q4ProductTest, ::testing::ValuesIn(kQ4Types),
                         [](const auto& type) { return Info(type.param).name; });

TEST(Q4ProductRefusalTest, OtherTypesPlacesAndSizesAreRefused) {
  std::vector<float> x(64, 0);
  float out = 0;
  cuda::MatrixView w = {x.data(), DType::kF16, 1, 32};
  EXPECT_EQ(cuda::Q4Product(&out, 1, x.data(), 1, w, nullptr), cudaErrorInvalidValue);
  w.type = DType::kQ8_0;
  EXPECT_EQ(cuda::Q4Product(&out, 1, x.data(), 1, w, nullptr), cudaErrorInvalidValue);
  w.type = DType::kQ4_0;
  EXPECT_EQ(cuda::Q4Product(&out, 1, x.data() + 1, 1, w, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::Q4Product(&out, 1, x.data(), int64_t{1} << 40, w, nullptr),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::Q4Product(nullptr, 1, nullptr, 0, w, nullptr), cudaSuccess) << "no rows";
}

}  // namespace
}  // namespace asymserve
