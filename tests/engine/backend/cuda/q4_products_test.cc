#include "engine/backend/cuda/q4_products.h"

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

#include "engine/backend/cuda/grid.h"
#include "engine/base/dequantize.h"
#include "engine/base/float16.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/engine/backend/cuda/product_inputs_fixture.h"
#include "tests/engine/backend/cuda/q4_fixture.h"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::kQ4Types;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Q4Weight;
using ::asymserve::testing::RoundedInputs;
using ::asymserve::testing::RoundedRow;
using ::asymserve::testing::SameBits;

constexpr int64_t kBlock = 32;
constexpr int64_t kStrands = 16;

/// x times w, in a matrix that had `before` in all elements.
std::vector<float> ProductOnce(const Matrix& x, const cuda::MatrixView& w, int64_t stride,
                               float before = std::nanf(""),
                               int64_t enough_blocks = cuda::kEnoughBlocks) {
  std::vector<float> out(static_cast<size_t>(x.rows * stride), before);
  const RoundedInputs rounded(x, cuda::kQ4InputOrder);
  EXPECT_EQ(cuda::Q4Product(out.data(), stride, rounded.get(), x.rows, w, nullptr, enough_blocks),
            cudaSuccess)
      << LaunchFault();
  return out;
}
/// The same in every order of threads and by both kernels, where there are rows enough for both.
std::vector<float> ProductOf(const Matrix& x, const cuda::MatrixView& w, int64_t stride,
                             float before = std::nanf("")) {
  const auto in_every_order = [&](int64_t enough_blocks) {
    return simt::SameInEveryOrder([&] { return ProductOnce(x, w, stride, before, enough_blocks); });
  };
  std::vector<float> out = in_every_order(cuda::kEnoughBlocks);
  if (x.rows > 16) {
    EXPECT_TRUE(SameBits(in_every_order(1), out)) << "the kernels differ";
  }
  return out;
}

/// A row of a file: w = code scale + minimum.
struct Q4Row {
  std::vector<float> codes;           // Q4_0: less 8
  std::vector<float> scales, minima;  // of blocks of 32
};

float HalfAt(const std::byte* bytes) {
  uint16_t half = 0;
  std::memcpy(&half, bytes, sizeof(half));
  return HalfToFloat(half);
}

Q4Row ReadRow(DType type, const std::byte* row, int64_t cols) {
  const bool super = type == DType::kQ4K;
  const bool centred = type == DType::kQ4_0;
  Q4Row read;
  for (int64_t block = 0; block < cols / kBlock; ++block) {
    const std::byte* from = row + (super ? block / 8 : block) * Info(type).block_bytes;
    const float d = HalfAt(from);
    const float m = centred ? 0 : HalfAt(from + 2);
    const std::byte* codes = from + (centred ? 2 : 4);
    int shift = 0;
    read.scales.push_back(d);
    read.minima.push_back(m);
    if (super) {
      const int sub = static_cast<int>(block % 8);
      const PackedScale packed = UnpackScale(codes, sub);
      read.scales.back() = d * static_cast<float>(packed.scale);
      read.minima.back() = -(m * static_cast<float>(packed.min));
      codes += 12 + sub / 2 * 32;
      shift = sub % 2 * 4;
    }
    for (int64_t k = 0; k < kBlock; ++k) {
      const auto byte = static_cast<int>(codes[super ? k : k % 16]);
      const int code = byte >> (super ? shift : k / 16 * 4) & 15;
      read.codes.push_back(static_cast<float>(code - (centred ? 8 : 0)));
    }
  }
  return read;
}

/// The products of a block's codes and activations, as q4_products.h says and, within a product of
/// matrices, tests/simt: in double, in order of the summed index.
float BlockSum(const float* codes, const float* x) {
  float sum = 0;
  for (int64_t step = 0; step < 2; ++step) {
    double exact = sum;
    for (int64_t i = 0; i < 16; ++i) {
      const int64_t k = 16 * step + i % 8 / 2 * 4 + i % 2 * 2 + i / 8;
      exact += double{codes[k]} * x[k];
    }
    sum = static_cast<float>(exact);
  }
  return sum;
}

/// A sum in the order that q4_products.h states.
float InOrder(const Q4Row& w, const RoundedRow& x) {
  const auto blocks = static_cast<int64_t>(w.scales.size());
  float sum = 0;
  for (int64_t s = 0; s < kStrands; ++s) {
    float strand = 0;
    for (int64_t b = blocks * s / kStrands; b < blocks * (s + 1) / kStrands; ++b) {
      const auto block = static_cast<size_t>(b);
      const float part = BlockSum(w.codes.data() + b * kBlock, x.values.data() + b * kBlock);
      strand = std::fma(w.scales[block], part, strand);
      strand = std::fma(w.minima[block], x.Sum(b), strand);
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
constexpr double kMmaUnits = 6;
#endif

/// Expects an element to be the product in doubles, as near as it must be: a term loses 2^-11 when
/// its activation is rounded, and is rounded by the products or the sum of its block, then with
/// each block of its strand, twice, and with each strand.
void ExpectNearDoubles(float out, const Q4Row& w, const float* x) {
  double value = 0;
  double magnitude = 0;
  for (size_t k = 0; k < w.codes.size(); ++k) {
    const double scaled = double{w.codes[k]} * w.scales[k / kBlock];
    value += (scaled + w.minima[k / kBlock]) * x[k];
    magnitude += (std::fabs(scaled) + std::fabs(w.minima[k / kBlock])) * std::fabs(x[k]);
  }
  const size_t most_blocks = w.scales.size() / kStrands + 1;
  const auto strand_blocks = static_cast<double>(most_blocks);
  const double unit = 0x1p-11 + (kMmaUnits + 2 * strand_blocks + kStrands) * 0x1p-24;
  EXPECT_NEAR(out, value, 1.001 * unit * magnitude);
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
  // One block for one strand; strands of none to five blocks; a last tile of one row and of 31;
  // two thread blocks of the kernel for many rows by two.
  const Shape shapes[] = {{1, 1, 1},   {2, 33, 3},  {3, 31, 5},   {4, 64, 9},
                          {5, 7, 33},  {7, 33, 2},  {8, 32, 4},   {9, 70, 34},
                          {16, 5, 65}, {17, 65, 3}, {33, 33, 18}, {70, 290, 2}};
  for (const Shape& shape : shapes) {
    SCOPED_TRACE(std::to_string(shape.rows) + " rows, " + std::to_string(shape.outputs) +
                 " outputs, " + std::to_string(shape.blocks) + " blocks");
    const int32_t cols = Cols(shape.blocks);
    const FileWeight file(dtype(), shape.outputs, cols, 21);
    const Q4Weight weight(file.source());
    const Matrix x = Matrix::Random(shape.rows, cols, 22);
    const std::vector<float> out = ProductOf(x, weight.view, shape.outputs);
    for (int64_t n = 0; n < shape.outputs; ++n) {
      const Q4Row w = ReadRow(dtype(), file.source().data + n * RowBytes(dtype(), cols), cols);
      for (int64_t t = 0; t < x.rows; ++t) {
        SCOPED_TRACE("row " + std::to_string(t) + " output " + std::to_string(n));
        const float got = out[static_cast<size_t>(t * shape.outputs + n)];
        ExpectNearDoubles(got, w, x.row(t));
        if (kHasHostBits) {
          ASSERT_EQ(got, InOrder(w, RoundedRow(x.row(t), cols)));
        }
      }
    }
  }
}

TEST_P(Q4ProductTest, ARowIsTheSameAloneAndAmongAnyNumberOfOthers) {
  constexpr int32_t kRows = 130;
  constexpr int32_t kOutputs = 37;
  const int32_t cols = Cols(19);
  const Q4Weight weight(FileWeight(dtype(), kOutputs, cols, 23).source());
  const Matrix x = Matrix::Random(kRows, cols, 24);
  const std::vector<float> all = ProductOnce(x, weight.view, kOutputs, 0, 1);
  const auto expect_same = [&](int32_t first, int32_t rows, int64_t enough_blocks) {
    Matrix some(rows, cols);
    std::copy_n(x.row(first), int64_t{rows} * cols, some.row(0));
    EXPECT_TRUE(SameBits(ProductOnce(some, weight.view, kOutputs, 0, enough_blocks),
                         std::span(all).subspan(static_cast<size_t>(first) * kOutputs,
                                                static_cast<size_t>(rows) * kOutputs)))
        << rows << " rows from " << first;
  };
  for (int32_t row = 0; row < kRows; ++row) expect_same(row, 1, cuda::kEnoughBlocks);
  for (int32_t rows = 2; rows <= 33; ++rows) {
    expect_same(kRows - rows, rows, cuda::kEnoughBlocks);
  }
  for (const int32_t rows : {17, 33, 64, 65, 128}) expect_same(kRows - rows, rows, 1);
  expect_same(1, 70, cuda::kEnoughBlocks);
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
  const Matrix clean = Matrix::Random(20, cols, 28);
  Matrix x = clean;
  x.row(1)[40 % cols] = std::nanf("");
  x.row(2)[41 % cols] = std::numeric_limits<float>::infinity();
  for (const int64_t enough_blocks : {int64_t{1}, cuda::kEnoughBlocks}) {
    const std::vector<float> out = ProductOnce(x, weight.view, 20, 0, enough_blocks);
    const std::vector<float> expected = ProductOnce(clean, weight.view, 20, 0, enough_blocks);
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

TEST_P(Q4ProductTest, ExtremeCodesScalesAndActivationsStayFinite) {
  // Largest and smallest fp16 numbers of either sign, the smallest subnormal, zero of either sign.
  const std::array<uint16_t, 2> halves[] = {{0x7BFF, 0x7BFF}, {0xFBFF, 0x7BFF}, {0x0001, 0x8001},
                                            {0x8001, 0x0001}, {0x0000, 0x3C00}, {0x8000, 0x8000}};
  const int32_t cols = 2 * Info(dtype()).block_elements;
  const float large = dtype() == DType::kQ4K ? 1e27f : 1e30f;  // times the largest weight
  for (const auto& pair : halves) {
    for (const auto codes : {std::byte{0xFF}, std::byte{0}, std::byte{0xF0}}) {
      const std::vector<std::byte> row = RowOf(dtype(), 2, codes, pair);
      const Q4Weight weight(WeightSource{row.data(), dtype(), 1, cols});
      Matrix x(5, cols);
      for (int32_t k = 0; k < cols; ++k) {
        x.row(0)[k] = static_cast<float>(k % 7) - 3;  // exact in fp16
        x.row(1)[k] = std::numeric_limits<float>::denorm_min();
        x.row(2)[k] = k % 3 == 0 ? large : -0x1.234567p-20f;
        x.row(3)[k] = 0x1.FFFFFEp-126f;
        x.row(4)[k] = k % 2 == 0 ? 0x1.010101p0f : -0x1.FEFEFEp90f;
      }
      const std::vector<float> out = ProductOnce(x, weight.view, 1);
      const Q4Row w = ReadRow(dtype(), row.data(), cols);
      for (int32_t t = 0; t < x.rows; ++t) {
        SCOPED_TRACE(std::to_string(pair[0]) + " " + std::to_string(static_cast<int>(codes)) +
                     ", row " + std::to_string(t));
        EXPECT_TRUE(std::isfinite(out[static_cast<size_t>(t)]));
        if (kHasHostBits) {
          EXPECT_EQ(out[static_cast<size_t>(t)], InOrder(w, RoundedRow(x.row(t), cols)));
        }
      }
      EXPECT_NEAR(out[0], InOrder(w, RoundedRow(x.row(0), cols)), 1e-6 * std::fabs(out[0]));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, Q4ProductTest, ::testing::ValuesIn(kQ4Types),
                         [](const auto& type) { return Info(type.param).name; });

TEST(Q4ProductRefusalTest, OtherTypesOrdersAndSizesAreRefused) {
  const Matrix x(1, 64);
  const RoundedInputs rounded(x, cuda::kQ4InputOrder);
  float out = 0;
  cuda::MatrixView w = {x.row(0), DType::kF16, 1, 32};
  EXPECT_EQ(cuda::Q4Product(&out, 1, rounded.get(), 1, w, nullptr), cudaErrorInvalidValue);
  w.type = DType::kQ8_0;
  EXPECT_EQ(cuda::Q4Product(&out, 1, rounded.get(), 1, w, nullptr), cudaErrorInvalidValue);
  w.type = DType::kQ4_0;
  const RoundedInputs other(x, cuda::InputOrder::kNeighbours);
  EXPECT_EQ(cuda::Q4Product(&out, 1, other.get(), 1, w, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::Q4Product(&out, 1, rounded.get(), int64_t{1} << 40, w, nullptr),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::Q4Product(nullptr, 1, rounded.get(), 0, w, nullptr), cudaSuccess) << "no rows";
}

}  // namespace
}  // namespace asymserve
