#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "engine/backend/cpu/packed_format.h"
#include "tests/engine/backend/backend_fixture.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FailsWith;
using ::asymserve::testing::FileWeight;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::KernelsOf;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Pack;
using ::asymserve::testing::SameBits;

constexpr DType kTypes[] = {DType::kF32,  DType::kF16, DType::kBF16, DType::kQ4_0, DType::kQ4_1,
                            DType::kQ8_0, DType::kQ4K, DType::kQ5K,  DType::kQ6K};

bool IsQuantized(DType dtype) {
  return Info(dtype).block_elements > 1;
}

/// What the kernels see of x: itself, or blocks of 32 rounded to 127 steps either side.
std::vector<float> SeenInputs(DType dtype, const float* x, int64_t cols) {
  std::vector<float> seen(x, x + cols);
  if (!IsQuantized(dtype)) return seen;
  for (int64_t b = 0; b < cols; b += 32) {
    float amax = 0;
    for (int64_t k = b; k < b + 32; ++k) amax = std::max(amax, std::fabs(x[k]));
    if (amax < 1e-30f) continue;
    for (int64_t k = b; k < b + 32; ++k) {
      seen[static_cast<size_t>(k)] = amax / 127.0f * std::nearbyint(x[k] * (127.0f / amax));
    }
  }
  return seen;
}

/// Products in double, and how far fp32 accumulation of `cols` terms may be from them.
struct Expected {
  double value = 0;
  double bound = 0;
};
Expected Reference(const std::vector<float>& w, const std::vector<float>& x) {
  Expected expected;
  double magnitude = 0;
  for (size_t b = 0; b < w.size(); b += 32) {
    const size_t end = std::min(w.size(), b + 32);
    double largest = 0;
    double inputs = 0;
    for (size_t k = b; k < end; ++k) {
      expected.value += static_cast<double>(w[k]) * x[k];
      largest = std::max(largest, std::fabs(static_cast<double>(w[k])));
      inputs += std::fabs(static_cast<double>(x[k]));
    }
    magnitude += 2 * largest * inputs;  // a scaled code and a minimum may cancel
  }
  expected.bound = magnitude * 0x1p-23;
  return expected;
}

struct Shape {
  int64_t rows, cols, outputs;
};

std::vector<Shape> Shapes(DType dtype) {
  const int64_t block = Info(dtype).block_elements;
  std::vector<Shape> shapes;
  for (const int64_t rows : {1, 2, 3, 7, 12, 16, 17, 33}) {
    shapes.push_back({rows, block == 1 ? 37 : 3 * block, 21});
  }
  shapes.push_back({5, block == 1 ? 1 : block, 1});
  shapes.push_back({1, block == 256 ? 768 : 576, 100});
  shapes.push_back({40, block == 256 ? 512 : 96, 33});
  shapes.push_back({150, block == 256 ? 256 : 64, 48});
  // More blocks than the AMX kernel decodes at once, and a last tile that is not full.
  shapes.push_back({19, block == 256 ? 1280 : 1184, 33});
  shapes.push_back({30, block == 256 ? 1280 : 1184, 33});
  return shapes;
}

Matrix Product(Isa isa, int threads, const FileWeight& weight, Matrix x) {
  const auto backend = MakeBackend(isa, threads);
  const auto packed = Pack(*backend, weight);
  EXPECT_THAT(backend->Reserve(x.rows, x.cols), IsOk());
  Matrix out(x.rows, packed->rows());
  EXPECT_THAT(backend->MatMul(out.view(), x.view(), *packed), IsOk());
  return out;
}

class MatMulTest : public ::testing::TestWithParam<std::tuple<DType, Isa>> {
 protected:
  DType dtype() const { return std::get<0>(GetParam()); }
  Isa isa() const { return std::get<1>(GetParam()); }
};

TEST_P(MatMulTest, IsWithinFloatErrorOfADoubleReference) {
  for (const Shape& shape : Shapes(dtype())) {
    SCOPED_TRACE(::testing::Message()
                 << shape.rows << " x " << shape.cols << " x " << shape.outputs << " seed 11");
    const FileWeight weight(dtype(), shape.outputs, shape.cols, 11);
    const Matrix x = Matrix::Random(shape.rows, shape.cols, 11);
    const Matrix out = Product(isa(), 1, weight, x);
    for (int64_t n = 0; n < shape.outputs; ++n) {
      const std::vector<float> w = weight.Dequantized(n);
      for (int64_t t = 0; t < shape.rows; ++t) {
        const Expected expected = Reference(w, SeenInputs(dtype(), x.row(t), shape.cols));
        ASSERT_NEAR(out.at(t, n), expected.value, expected.bound) << "row " << t << " col " << n;
      }
    }
  }
}

TEST_P(MatMulTest, GivesTheBitsOfThePortableKernels) {
  for (const Shape& shape : Shapes(dtype())) {
    const FileWeight weight(dtype(), shape.outputs, shape.cols, 12);
    const Matrix x = Matrix::Random(shape.rows, shape.cols, 12);
    EXPECT_TRUE(
        SameBits(Product(isa(), 1, weight, x).values, Product(Isa::kPortable, 1, weight, x).values))
        << shape.rows << " x " << shape.cols << " x " << shape.outputs << " seed 12";
  }
}

TEST_P(MatMulTest, GivesARowTheSameBitsAloneAsAmongOthers) {
  const int64_t cols = 2 * std::max(96, Info(dtype()).block_elements);
  const FileWeight weight(dtype(), 37, cols, 13);
  const Matrix x = Matrix::Random(35, cols, 13);
  const Matrix all = Product(isa(), 1, weight, x);
  for (const int64_t first : {0, 1, 15, 16, 34}) {
    for (const int64_t rows : {1, 2, 3, 5, 9, 17}) {
      if (first + rows > x.rows) continue;
      Matrix some(rows, cols);
      std::copy_n(x.row(first), rows * cols, some.row(0));
      const Matrix out = Product(isa(), 1, weight, some);
      EXPECT_TRUE(SameBits(out.values, {all.row(first), out.values.size()}))
          << "rows " << first << " to " << first + rows << " seed 13";
    }
  }
}

TEST_P(MatMulTest, GivesTheSameBitsForAnyNumberOfThreads) {
  const int64_t cols = 768;
  const FileWeight weight(dtype(), 500, cols, 14);
  for (const int64_t rows : {1, 19, 270}) {
    if (isa() == Isa::kPortable && rows > 19) continue;  // slow, and the same scheduling
    const Matrix x = Matrix::Random(rows, cols, 14);
    const Matrix one = Product(isa(), 1, weight, x);
    for (const int threads : {2, 3}) {
      EXPECT_TRUE(SameBits(Product(isa(), threads, weight, x).values, one.values))
          << rows << " rows, " << threads << " threads, seed 14";
    }
  }
}

TEST_P(MatMulTest, CarriesANanOrInfinityToItsOwnRowOnly) {
  const int64_t cols = std::max(64, Info(dtype()).block_elements);
  const FileWeight weight(dtype(), 20, cols, 15);
  const Matrix clean = Matrix::Random(4, cols, 15);
  Matrix x = clean;
  x.row(1)[40] = std::nanf("");
  x.row(2)[41] = std::numeric_limits<float>::infinity();
  const Matrix out = Product(isa(), 1, weight, x);
  const Matrix expected = Product(isa(), 1, weight, clean);
  for (int64_t n = 0; n < 20; ++n) {
    EXPECT_TRUE(std::isnan(out.at(1, n)));
    EXPECT_FALSE(std::isfinite(out.at(2, n)));
    EXPECT_EQ(out.at(0, n), expected.at(0, n));
    EXPECT_EQ(out.at(3, n), expected.at(3, n));
  }
}

TEST_P(MatMulTest, ComputesZeroFromInputsOfZeroAndOfNoSize) {
  const int64_t cols = std::max(64, Info(dtype()).block_elements);
  const FileWeight weight(dtype(), 20, cols, 16);
  Matrix x(2, cols);
  for (int64_t k = 0; k < cols; ++k) {
    x.row(0)[k] = 0;
    x.row(1)[k] = std::numeric_limits<float>::denorm_min();
  }
  for (const float value : Product(isa(), 1, weight, x).values) EXPECT_NEAR(value, 0, 1e-40);
}

TEST_P(MatMulTest, KeepsExtremeCodesExact) {
  // The largest codes against the largest inputs of either sign: no step may saturate.
  const int64_t cols = Info(dtype()).block_elements == 256 ? 256 : 64;
  std::string bytes(static_cast<size_t>(RowBytes(dtype(), cols)), '\xFF');
  if (IsQuantized(dtype())) {
    const int64_t block = Info(dtype()).block_bytes;
    for (int64_t b = 0; b < RowBytes(dtype(), cols); b += block) {
      const int64_t scale = dtype() == DType::kQ6K ? 208 : 0;
      bytes.replace(static_cast<size_t>(b + scale), 2, std::string("\x00\x3C", 2));  // 1.0
      if (dtype() == DType::kQ8_0) bytes.replace(static_cast<size_t>(b) + 2, 16, 16, '\x80');
      if (dtype() == DType::kQ6K) bytes.replace(static_cast<size_t>(b) + 192, 16, 16, '\x7F');
      const bool has_min =
          dtype() == DType::kQ4_1 || dtype() == DType::kQ4K || dtype() == DType::kQ5K;
      if (has_min) bytes.replace(static_cast<size_t>(b + 2), 2, std::string("\x00\x3C", 2));
    }
  } else {
    bytes.assign(bytes.size(), '\x3F');
  }
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  const WeightSource source = {data, dtype(), 1, cols};
  const std::vector<float> w = DequantizeRow(dtype(), data, cols);
  constexpr int64_t kRows = 18;  // a tile of rows and some more
  Matrix x(kRows, cols);
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t k = 0; k < cols; ++k) {
      const bool negative = t % 3 == 1 || (t % 3 == 2 && k % 2 != 0);
      x.row(t)[k] = negative ? -127.0f : 127.0f;
    }
  }
  const auto backend = MakeBackend(isa());
  const auto packed = Pack(*backend, std::span(&source, 1));
  ASSERT_THAT(backend->Reserve(kRows, cols), IsOk());
  Matrix out(kRows, 1);
  ASSERT_THAT(backend->MatMul(out.view(), x.view(), *packed), IsOk());
  for (int64_t t = 0; t < kRows; ++t) {
    const Expected expected = Reference(w, {x.row(t), x.row(t) + cols});
    EXPECT_NEAR(out.at(t, 0), expected.value, expected.bound);
  }
}

std::string MatMulTestName(const ::testing::TestParamInfo<std::tuple<DType, Isa>>& info) {
  return std::string(Info(std::get<0>(info.param)).name) + "_" +
         std::string(IsaName(std::get<1>(info.param)));
}
INSTANTIATE_TEST_SUITE_P(EveryTypeAndIsa, MatMulTest,
                         ::testing::Combine(::testing::ValuesIn(kTypes),
                                            ::testing::ValuesIn(SupportedIsas())),
                         MatMulTestName);

class WeightTest : public ::testing::TestWithParam<DType> {};

TEST_P(WeightTest, EmbedsTheDequantizedRow) {
  const int64_t cols = std::max(96, Info(GetParam()).block_elements);
  const FileWeight weight(GetParam(), 35, cols, 17);
  const auto backend = MakeBackend(Isa::kAuto);
  const auto packed = Pack(*backend, weight);
  const std::vector<int32_t> tokens = {0, 34, 16, 15, 16};
  Matrix out(5, cols);
  ASSERT_THAT(backend->Embed(out.view(), *packed, tokens), IsOk());
  for (int64_t t = 0; t < 5; ++t) {
    const std::vector<float> expected = weight.Dequantized(tokens[static_cast<size_t>(t)]);
    for (int64_t k = 0; k < cols; ++k) {
      ASSERT_EQ(out.at(t, k), expected[static_cast<size_t>(k)]) << "token " << t << " " << k;
    }
  }
}

TEST_P(WeightTest, StaysAtTheFilesPrecisionInMemory) {
  const FileWeight weight(GetParam(), 64, 2048, 18);
  const auto packed = Pack(*MakeBackend(Isa::kAuto), weight);
  EXPECT_GE(packed->bytes(), weight.file_bytes());
  EXPECT_LE(packed->bytes(), weight.file_bytes() * 103 / 100);
  EXPECT_EQ(packed->rows(), 64);
  EXPECT_EQ(packed->cols(), 2048);
}

INSTANTIATE_TEST_SUITE_P(EveryType, WeightTest, ::testing::ValuesIn(kTypes),
                         [](const auto& type) { return Info(type.param).name; });

TEST(PackWeightTest, StacksPartsOfDifferentTypesAndOddHeights) {
  const FileWeight q(DType::kQ4K, 40, 256, 1);
  const FileWeight k(DType::kQ4K, 9, 256, 2);
  const FileWeight v(DType::kQ6K, 9, 256, 3);
  const FileWeight f(DType::kF16, 3, 256, 4);
  const WeightSource parts[] = {q.source(), k.source(), v.source(), f.source()};
  const auto backend = MakeBackend(Isa::kAuto, 2);
  const auto stacked = Pack(*backend, parts);
  ASSERT_EQ(stacked->rows(), 61);
  ASSERT_THAT(backend->Reserve(18, 256), IsOk());
  Matrix x = Matrix::Random(18, 256, 19);
  Matrix out(18, 61);
  ASSERT_THAT(backend->MatMul(out.view(), x.view(), *stacked), IsOk());
  int64_t column = 0;
  for (const FileWeight* part : {&q, &k, &v, &f}) {
    const auto single = Pack(*backend, *part);
    Matrix expected(18, single->rows());
    ASSERT_THAT(backend->MatMul(expected.view(), x.view(), *single), IsOk());
    for (int64_t t = 0; t < 18; ++t) {
      for (int64_t n = 0; n < single->rows(); ++n) {
        ASSERT_EQ(out.at(t, column + n), expected.at(t, n)) << t << " " << column + n;
      }
    }
    column += single->rows();
  }
  Matrix row(1, 256);
  const int32_t token = 57;
  ASSERT_THAT(backend->Embed(row.view(), *stacked, std::span(&token, 1)), IsOk());
  EXPECT_EQ(row.values, v.Dequantized(8));
}

TEST(PackWeightTest, RefusesWhatItCannotPack) {
  const auto backend = MakeBackend(Isa::kAuto);
  const FileWeight a(DType::kQ8_0, 4, 64, 1);
  const FileWeight b(DType::kQ8_0, 4, 32, 1);
  const WeightSource unequal[] = {a.source(), b.source()};
  EXPECT_THAT(backend->PackWeight(unequal),
              FailsWith(absl::StatusCode::kInvalidArgument, "rows of 64 and of 32"));
  WeightSource source = a.source();
  source.dtype = DType::kI32;
  EXPECT_THAT(backend->PackWeight(std::span(&source, 1)),
              FailsWith(absl::StatusCode::kInvalidArgument, "I32"));
  source = a.source();
  source.cols = 48;
  EXPECT_THAT(backend->PackWeight(std::span(&source, 1)),
              FailsWith(absl::StatusCode::kInvalidArgument, "block of 32"));
  EXPECT_THAT(backend->PackWeight({}), FailsWith(absl::StatusCode::kInvalidArgument, "no parts"));
}

TEST(MatMulShapeTest, NamesTheShapesThatDoNotFit) {
  const auto backend = MakeBackend(Isa::kAuto);
  const auto weight = Pack(*backend, FileWeight(DType::kF32, 8, 64, 1));
  ASSERT_THAT(backend->Reserve(2, 64), IsOk());
  Matrix x(2, 63);
  Matrix out(2, 8);
  EXPECT_THAT(backend->MatMul(out.view(), x.view(), *weight),
              FailsWith(absl::StatusCode::kInternal, "[2, 63] times weight [8, 64]"));
  Matrix many(3, 64);
  Matrix many_out(3, 8);
  EXPECT_THAT(backend->MatMul(many_out.view(), many.view(), *weight),
              FailsWith(absl::StatusCode::kInternal, "exceeds what is reserved"));
}

class QuantizerTest : public ::testing::TestWithParam<Isa> {};

TEST_P(QuantizerTest, RoundsToTheNearestStepAndNoBetter) {
  constexpr int64_t kBlocks = 50;
  for (const int rows : {1, 2, 5, 16}) {
    const Matrix x = Matrix::Random(rows, kBlocks * kQuantBlock, 20);
    std::vector<ActivationBlock> tile(kBlocks);
    KernelsOf(GetParam()).quantize(tile.data(), x.row(0), kBlocks * kQuantBlock, rows, kBlocks);
    for (int row = 0; row < rows; ++row) {
      SCOPED_TRACE(absl::StrCat("seed 20, row ", row, " of ", rows));
      double worst = 0;
      for (size_t b = 0; b < kBlocks; ++b) {
        const ActivationBlock& block = tile[b];
        const double scale = block.scale[row];
        int largest = 0;
        int sums[2] = {0, 0};
        for (int i = 0; i < kQuantBlock; ++i) {
          const int q = block.q[row][i];
          const double error =
              std::fabs(q * scale - x.row(row)[b * kQuantBlock + static_cast<size_t>(i)]);
          EXPECT_LE(error, 0.5001 * scale);
          worst = std::max(worst, error / scale);
          largest = std::max(largest, std::abs(q));
          sums[i / 16] += q;
        }
        EXPECT_EQ(largest, 127);
        EXPECT_EQ(block.negative_half[0][row], -sums[0]);
        EXPECT_EQ(block.negative_half[1][row], -sums[1]);
        EXPECT_EQ(block.negative_sum[row], -sums[0] - sums[1]);
        EXPECT_EQ(block.scaled_sum[row], block.scale[row] * static_cast<float>(sums[0] + sums[1]));
      }
      EXPECT_GT(worst, 0.45) << "1600 values use the whole step";
    }
  }
}

TEST_P(QuantizerTest, RoundsTiesToEven) {
  Matrix x(1, kQuantBlock);
  for (int i = 0; i < kQuantBlock; ++i) x.row(0)[i] = static_cast<float>(i) - 15.5f;
  x.row(0)[0] = 127;
  ActivationBlock block = {};
  KernelsOf(GetParam()).quantize(&block, x.row(0), kQuantBlock, 1, 1);
  EXPECT_EQ(block.scale[0], 1.0f);
  for (int i = 1; i < kQuantBlock; ++i) EXPECT_EQ(block.q[0][i], std::nearbyint(x.at(0, i)));
}

// Blocks and rows share vectors: the last block is one whose vector it fills up itself.
TEST_P(QuantizerTest, ABlockWithoutAScaleChangesNoOther) {
  constexpr int64_t kBlocks = 17;
  constexpr int64_t kInputs = kBlocks * kQuantBlock;
  const float special[] = {0.0f, 1e-31f, std::numeric_limits<float>::infinity(), std::nanf("")};
  for (const int rows : {1, 2, 3, 5, 16}) {
    for (const float value : special) {
      Matrix x = Matrix::Random(rows, kInputs, 21);
      std::vector<ActivationBlock> plain(kBlocks), tile(kBlocks);
      KernelsOf(GetParam()).quantize(plain.data(), x.row(0), kInputs, rows, kBlocks);
      const auto is_special = [](int row, int64_t b) { return (row + b) % 8 == 0; };
      for (int row = 0; row < rows; ++row) {
        for (int64_t k = 0; k < kInputs; ++k) {
          if (is_special(row, k / kQuantBlock)) x.row(row)[k] = value;
        }
      }
      KernelsOf(GetParam()).quantize(tile.data(), x.row(0), kInputs, rows, kBlocks);
      for (int row = 0; row < rows; ++row) {
        for (int64_t b = 0; b < kBlocks; ++b) {
          SCOPED_TRACE(absl::StrCat(value, ", row ", row, " of ", rows, ", block ", b));
          const auto at = static_cast<size_t>(b);
          const std::vector<int8_t> codes(tile[at].q[row], tile[at].q[row] + kQuantBlock);
          if (!is_special(row, b)) {
            EXPECT_EQ(tile[at].scale[row], plain[at].scale[row]);
            EXPECT_EQ(tile[at].scaled_sum[row], plain[at].scaled_sum[row]);
            EXPECT_TRUE(std::equal(codes.begin(), codes.end(), plain[at].q[row]));
            continue;
          }
          EXPECT_EQ(codes, std::vector<int8_t>(kQuantBlock, 0));
          if (std::isfinite(value)) {
            EXPECT_EQ(tile[at].scale[row], 0.0f);
            EXPECT_EQ(tile[at].scaled_sum[row], 0.0f);
          } else {
            EXPECT_TRUE(std::isnan(tile[at].scale[row]));
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, QuantizerTest, ::testing::ValuesIn(SupportedIsas()),
                         testing::IsaTestName);

}  // namespace
}  // namespace asymserve
