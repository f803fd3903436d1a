#include "engine/backend/cuda/dense_products.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "engine/base/float16.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/engine/backend/cuda/product_inputs_fixture.h"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::RoundedInputs;
using ::asymserve::testing::RoundedRow;
using ::asymserve::testing::SameBits;

constexpr int64_t kBlock = 32;
constexpr int64_t kStrands = 16;

/// A weight as the device has it, and its values.
struct DenseWeight {
  DenseWeight(DType type, int32_t rows, int32_t cols, uint64_t seed)
      : bytes(static_cast<size_t>(rows) * static_cast<size_t>(cols)),
        view{bytes.data(), type, rows, cols} {
    const FileWeight file(type, rows, cols, seed);
    std::memcpy(bytes.data(), file.source().data, 2 * bytes.size());
  }
  float at(int64_t row, int64_t col) const {
    const uint16_t bits = bytes[static_cast<size_t>(row * view.cols + col)];
    return view.type == DType::kF16 ? HalfToFloat(bits) : BrainToFloat(bits);
  }

  std::vector<uint16_t> bytes;
  cuda::MatrixView view;
};

std::vector<float> ProductOnce(const Matrix& x, const DenseWeight& w, int64_t stride,
                               int64_t enough_blocks = cuda::kEnoughBlocks, float before = 0) {
  std::vector<float> out(static_cast<size_t>(x.rows * stride), before);
  const RoundedInputs rounded(x, cuda::kDenseInputOrder);
  EXPECT_EQ(
      cuda::DenseProduct(out.data(), stride, rounded.get(), x.rows, w.view, nullptr, enough_blocks),
      cudaSuccess)
      << LaunchFault();
  return out;
}
/// The same in every order of threads and by both kernels, where there are rows enough for both.
std::vector<float> ProductOf(const Matrix& x, const DenseWeight& w, int64_t stride,
                             float before = 0) {
  const auto in_every_order = [&](int64_t enough_blocks) {
    return simt::SameInEveryOrder([&] { return ProductOnce(x, w, stride, enough_blocks, before); });
  };
  std::vector<float> out = in_every_order(cuda::kEnoughBlocks);
  if (x.rows > 16) {
    EXPECT_TRUE(SameBits(in_every_order(1), out)) << "the kernels differ";
  }
  return out;
}

/// A weight as it is multiplied.
float HalfOf(float weight) {
  return HalfToFloat(FloatToHalf(weight));
}

/// A sum in the order that dense_products.h states and, within a product of matrices, tests/simt:
/// in double, in order of the summed index.
float InOrder(const DenseWeight& w, int64_t row, const RoundedRow& x) {
  const int64_t blocks = w.view.cols / kBlock;
  float sum = 0;
  for (int64_t s = 0; s < kStrands; ++s) {
    float strand = 0;
    for (int64_t b = blocks * s / kStrands; b < blocks * (s + 1) / kStrands; ++b) {
      float part = 0;
      for (int64_t step = 0; step < 2; ++step) {
        double exact = part;
        for (int64_t i = 0; i < 16; ++i) {
          const int64_t k = b * kBlock + i % 8 / 2 * 8 + step * 4 + i / 8 * 2 + i % 2;
          exact += double{HalfOf(w.at(row, k))} * x.values[static_cast<size_t>(k)];
        }
        part = static_cast<float>(exact);
      }
      strand += part;
    }
    sum += strand;
  }
  return sum * x.scale;
}

#ifdef ASYMSERVE_ON_DEVICE
constexpr bool kHasHostBits = false;  // a tensor core sums in an order of its own
constexpr double kMmaUnits = 32;
#else
constexpr bool kHasHostBits = true;
constexpr double kMmaUnits = 2;
#endif

void ExpectNearDoubles(float out, const DenseWeight& w, int64_t row, const float* x) {
  double value = 0;
  double magnitude = 0;
  for (int64_t k = 0; k < w.view.cols; ++k) {
    const double term = double{w.at(row, k)} * x[k];
    value += term;
    magnitude += std::fabs(term);
  }
  const int32_t most_blocks = w.view.cols / kBlock / kStrands + 1;
  const auto strand_blocks = static_cast<double>(most_blocks);
  const double unit = 0x1p-11 + (kMmaUnits + strand_blocks + kStrands) * 0x1p-24;
  EXPECT_NEAR(out, value, 1.001 * unit * magnitude + 1e-38);
}

class DenseProductTest : public ::testing::TestWithParam<DType> {};

TEST_P(DenseProductTest, IsThatOfDoublesAndOfTheOrderThatIsStated) {
  const std::array<int32_t, 3> shapes[] = {{1, 1, 32},   {2, 33, 96},   {8, 31, 1120},
                                           {9, 70, 544}, {17, 65, 160}, {70, 130, 64}};
  for (const auto& [rows, outputs, cols] : shapes) {
    const DenseWeight w(GetParam(), outputs, cols, 41);
    const Matrix x = Matrix::Random(rows, cols, 42);
    const std::vector<float> out = ProductOf(x, w, outputs);
    for (int64_t n = 0; n < outputs; ++n) {
      for (int64_t t = 0; t < rows; ++t) {
        SCOPED_TRACE(std::to_string(cols) + " columns, row " + std::to_string(t) + " output " +
                     std::to_string(n));
        const float got = out[static_cast<size_t>(t * outputs + n)];
        ExpectNearDoubles(got, w, n, x.row(t));
        if (kHasHostBits) {
          ASSERT_EQ(got, InOrder(w, n, RoundedRow(x.row(t), cols)));
        }
      }
    }
  }
}

TEST_P(DenseProductTest, ARowIsTheSameAloneAndAmongAnyNumberOfOthers) {
  constexpr int32_t kRows = 66;
  constexpr int32_t kOutputs = 37;
  constexpr int32_t kCols = 19 * 32;
  const DenseWeight w(GetParam(), kOutputs, kCols, 43);
  const Matrix x = Matrix::Random(kRows, kCols, 44);
  const std::vector<float> all = ProductOnce(x, w, kOutputs, 1);
  const auto expect_same = [&](int32_t first, int32_t rows, int64_t enough_blocks) {
    Matrix some(rows, kCols);
    std::copy_n(x.row(first), int64_t{rows} * kCols, some.row(0));
    EXPECT_TRUE(SameBits(ProductOnce(some, w, kOutputs, enough_blocks),
                         std::span(all).subspan(static_cast<size_t>(first) * kOutputs,
                                                static_cast<size_t>(rows) * kOutputs)))
        << rows << " rows from " << first;
  };
  for (int32_t row = 0; row < kRows; ++row) expect_same(row, 1, cuda::kEnoughBlocks);
  for (int32_t rows = 2; rows <= 33; ++rows) {
    expect_same(kRows - rows, rows, cuda::kEnoughBlocks);
  }
  for (const int32_t rows : {17, 33, 64, 65}) expect_same(kRows - rows, rows, 1);
}

TEST_P(DenseProductTest, LeavesWhatIsBetweenItsRowsAlone) {
  const DenseWeight w(GetParam(), 33, 64, 45);
  const Matrix x = Matrix::Random(19, 64, 46);
  const std::vector<float> dense = ProductOf(x, w, 33);
  const std::vector<float> wide = ProductOf(x, w, 40, 77.0f);
  for (size_t row = 0; row < 19; ++row) {
    for (size_t i = 0; i < 40; ++i) {
      EXPECT_EQ(wide[row * 40 + i], i < 33 ? dense[row * 33 + i] : 77.0f) << row << ", " << i;
    }
  }
}

TEST_P(DenseProductTest, CarriesANanOrInfinityToItsOwnRowOnly) {
  const DenseWeight w(GetParam(), 20, 96, 47);
  const Matrix clean = Matrix::Random(20, 96, 48);
  Matrix x = clean;
  x.row(1)[40] = std::nanf("");
  x.row(2)[41] = std::numeric_limits<float>::infinity();
  for (const int64_t enough_blocks : {int64_t{1}, cuda::kEnoughBlocks}) {
    const std::vector<float> out = ProductOnce(x, w, 20, enough_blocks);
    const std::vector<float> expected = ProductOnce(clean, w, 20, enough_blocks);
    for (size_t row = 0; row < 20; ++row) {
      for (size_t n = 0; n < 20; ++n) {
        if (row == 1 || row == 2) {
          EXPECT_FALSE(std::isfinite(out[20 * row + n]));
        } else {
          EXPECT_EQ(out[20 * row + n], expected[20 * row + n]);
        }
      }
    }
  }
}

/// Times one a finite weight is itself; a BF16 one is what fp16 has of it.
TEST_P(DenseProductTest, EveryWeightIsWhatFp16HasOfIt) {
  constexpr int32_t kRows = 1 << 11;
  DenseWeight w(GetParam(), kRows, 32, 49);
  for (size_t i = 0; i < w.bytes.size(); ++i) w.bytes[i] = static_cast<uint16_t>(i);
  Matrix x(32, 32);
  std::fill(x.values.begin(), x.values.end(), 0.0f);
  for (int32_t k = 0; k < 32; ++k) x.row(k)[k] = 1.0f;
  const std::vector<float> out = ProductOnce(x, w, kRows);
  const auto value = [&](int32_t row, int32_t col) {
    return out[static_cast<size_t>(col) * kRows + static_cast<size_t>(row)];
  };
  for (int32_t row = 0; row < kRows; ++row) {
    bool finite = true;
    for (int32_t k = 0; k < 32; ++k) finite = finite && std::isfinite(HalfOf(w.at(row, k)));
    for (int32_t k = 0; k < 32 && finite; ++k) ASSERT_EQ(value(row, k), HalfOf(w.at(row, k)));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, DenseProductTest, ::testing::Values(DType::kF16, DType::kBF16),
                         [](const auto& type) { return Info(type.param).name; });

TEST(DenseProductRefusalTest, OtherTypesPlacesOrdersAndSizesAreRefused) {
  const DenseWeight weight(DType::kF16, 1, 64, 50);
  const Matrix x(1, 64);
  const RoundedInputs rounded(x, cuda::kDenseInputOrder);
  const RoundedInputs other(x, cuda::InputOrder::kInterleaved);
  float out = 0;
  const auto product = [&](const cuda::MatrixView& w, const RoundedInputs& from, int64_t rows) {
    return cuda::DenseProduct(&out, 1, from.get(), rows, w, nullptr);
  };
  cuda::MatrixView w = weight.view;
  EXPECT_EQ(product(w, other, 1), cudaErrorInvalidValue);
  EXPECT_EQ(product(w, rounded, int64_t{1} << 40), cudaErrorInvalidConfiguration);
  EXPECT_EQ(product(w, rounded, 0), cudaSuccess) << "no rows";
  w.cols = 40;
  EXPECT_EQ(product(w, rounded, 1), cudaErrorInvalidValue);
  w.cols = 32;
  w.data = weight.bytes.data() + 4;
  EXPECT_EQ(product(w, rounded, 1), cudaErrorInvalidValue);
  w = weight.view;
  w.type = DType::kF32;
  EXPECT_EQ(product(w, rounded, 1), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace asymserve
