#include <algorithm>

#include "engine/base/float16.h"
#include "tests/engine/backend/backend_fixture.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::KernelsOf;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::SameBits;

class ElementwiseTest : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels() const { return KernelsOf(GetParam()); }
};

/// Distance in units of the last place of `expected`.
double Ulps(float actual, double expected) {
  const float rounded = static_cast<float>(expected);
  const float next = std::nextafter(rounded, std::numeric_limits<float>::infinity());
  return std::fabs(actual - expected) / (static_cast<double>(next) - rounded);
}

TEST_P(ElementwiseTest, ExpIsWithinTwoUlps) {
  std::vector<float> x;
  for (float value = -87.3f; value < 88.7f; value += 0.00137f) x.push_back(value);
  std::vector<float> y(x.size(), std::nanf(""));
  kernels().exp(y.data(), x.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    ASSERT_LE(Ulps(y[i], std::exp(static_cast<double>(x[i]))), 2.0) << "exp(" << x[i] << ")";
  }
  std::vector<float> portable(x.size());
  PortableKernels()->exp(portable.data(), x.data(), static_cast<int64_t>(x.size()));
  EXPECT_TRUE(SameBits(y, portable));
}

TEST_P(ElementwiseTest, ExpHandlesTheEndsOfTheRange) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {-infinity, -200,  -104, -103.5f,  -100,         0,
                                -0.0f,     88.8f, 1000, infinity, std::nanf("")};
  std::vector<float> y(x.size(), 7);
  kernels().exp(y.data(), x.data(), static_cast<int64_t>(x.size()));
  EXPECT_EQ(y[0], 0.0f);
  EXPECT_EQ(y[1], 0.0f);
  EXPECT_EQ(y[2], 0.0f);
  EXPECT_GT(y[3], 0.0f);
  EXPECT_NEAR(y[4], std::exp(-100.0), 0x1p-149);
  EXPECT_EQ(y[5], 1.0f);
  EXPECT_EQ(y[6], 1.0f);
  EXPECT_EQ(y[7], infinity);
  EXPECT_EQ(y[8], infinity);
  EXPECT_EQ(y[9], infinity);
  EXPECT_TRUE(std::isnan(y[10]));
}

TEST_P(ElementwiseTest, RmsNormMatchesADoubleReferenceAtOddWidths) {
  for (const int64_t cols : {1, 15, 16, 17, 64, 577}) {
    Matrix x = Matrix::Random(3, cols, 50);
    Matrix weight = Matrix::Random(1, cols, 51);
    Matrix out(3, cols);
    Matrix portable(3, cols);
    const auto backend = MakeBackend(GetParam());
    ASSERT_THAT(backend->RmsNorm(out.view(), x.view(), weight.vector_view(), 1e-5f), IsOk());
    ASSERT_THAT(MakeBackend(Isa::kPortable)
                    ->RmsNorm(portable.view(), x.view(), weight.vector_view(), 1e-5f),
                IsOk());
    EXPECT_TRUE(SameBits(out.values, portable.values)) << cols << " columns, seed 50";
    for (int64_t t = 0; t < 3; ++t) {
      double squares = 0;
      for (int64_t i = 0; i < cols; ++i) squares += static_cast<double>(x.at(t, i)) * x.at(t, i);
      const double inverse = 1 / std::sqrt(squares / static_cast<double>(cols) + 1e-5);
      for (int64_t i = 0; i < cols; ++i) {
        const double expected = x.at(t, i) * inverse * weight.at(0, i);
        ASSERT_NEAR(out.at(t, i), expected, 1e-6 * std::fabs(expected));
      }
    }
  }
}

TEST_P(ElementwiseTest, AddRmsNormIsAnAdditionAndThenRmsNorm) {
  const auto backend = MakeBackend(GetParam(), 2);
  Matrix residual = Matrix::Random(70, 577, 52);
  Matrix delta = Matrix::Random(70, 577, 53);
  Matrix weight = Matrix::Random(1, 577, 54);
  Matrix sum(70, 577);
  for (size_t i = 0; i < sum.values.size(); ++i) {
    sum.values[i] = residual.values[i] + delta.values[i];
  }
  Matrix expected(70, 577);
  ASSERT_THAT(backend->RmsNorm(expected.view(), sum.view(), weight.vector_view(), 1e-5f), IsOk());
  Matrix out(70, 577);
  ASSERT_THAT(
      backend->AddRmsNorm(out.view(), residual.view(), delta.view(), weight.vector_view(), 1e-5f),
      IsOk());
  EXPECT_TRUE(SameBits(out.values, expected.values)) << "seeds 52 to 54";
  EXPECT_TRUE(SameBits(residual.values, sum.values));
}

TEST_P(ElementwiseTest, SwiGluMatchesADoubleReference) {
  for (const int64_t cols : {1, 16, 37, 1536}) {
    Matrix gate_up = Matrix::Random(5, 2 * cols, 55, 4);
    Matrix out(5, cols);
    Matrix portable(5, cols);
    ASSERT_THAT(MakeBackend(GetParam(), 2)->SwiGlu(out.view(), gate_up.view()), IsOk());
    ASSERT_THAT(MakeBackend(Isa::kPortable)->SwiGlu(portable.view(), gate_up.view()), IsOk());
    EXPECT_TRUE(SameBits(out.values, portable.values)) << cols << " columns, seed 55";
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t i = 0; i < cols; ++i) {
        const double gate = gate_up.at(t, i);
        const double expected = gate / (1 + std::exp(-gate)) * gate_up.at(t, cols + i);
        ASSERT_NEAR(out.at(t, i), expected, 1e-6 * std::fabs(expected));
      }
    }
  }
}

TEST_P(ElementwiseTest, HalvesRoundToNearestEvenAndOverflowToNan) {
  std::vector<float> x = {0,
                          -0.0f,
                          1,
                          65504,
                          65519.9f,
                          65520,
                          -70000,
                          1e-8f,
                          0x1p-25f,
                          0x1.8p-24f,
                          1.00048828125f,
                          std::nanf(""),
                          std::numeric_limits<float>::infinity()};
  std::mt19937 generator(56);
  for (int i = 0; i < 4000; ++i) {
    const auto bits = static_cast<uint32_t>(generator());
    x.push_back(std::bit_cast<float>(bits));
  }
  std::vector<uint16_t> half(x.size(), 0x1234);
  kernels().to_half(half.data(), x.data(), static_cast<int64_t>(x.size()));
  for (size_t i = 0; i < x.size(); ++i) {
    const uint16_t expected = FloatToHalf(x[i]);
    const bool is_finite = (expected & 0x7C00) != 0x7C00;
    if (is_finite) {
      ASSERT_EQ(half[i], expected) << x[i];
    } else {
      ASSERT_TRUE(std::isnan(HalfToFloat(half[i]))) << x[i];
    }
  }
}

Matrix RopeTable(int64_t positions, int64_t size) {
  Matrix table(positions, size);
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < size / 2; ++i) {
      const double angle = static_cast<double>(p) / std::pow(10000.0, 2.0 * i / size);
      table.row(p)[i] = static_cast<float>(std::cos(angle));
      table.row(p)[size / 2 + i] = static_cast<float>(std::sin(angle));
    }
  }
  return table;
}

/// Bias, head norm and rotation in double.
std::vector<double> PrepareReference(const QkvParams& params, const float* row, int32_t position) {
  const AttentionShape& shape = params.shape;
  const int64_t size = shape.head_size;
  const int64_t heads = shape.heads + 2 * shape.kv_heads;
  std::vector<double> out(row, row + heads * size);
  for (int64_t i = 0; i < heads * size; ++i) {
    if (params.bias.data != nullptr) out[static_cast<size_t>(i)] += params.bias.As<float>()[i];
  }
  for (int64_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
    double* v = out.data() + head * size;
    const TensorView& norm = head < shape.heads ? params.q_norm : params.k_norm;
    if (norm.data != nullptr) {
      double squares = 0;
      for (int64_t i = 0; i < size; ++i) squares += v[i] * v[i];
      const double inverse =
          1 / std::sqrt(squares / static_cast<double>(size) + params.norm_epsilon);
      for (int64_t i = 0; i < size; ++i) v[i] *= inverse * norm.As<float>()[i];
    }
    const float* rope = params.rope.Row<float>(position);
    for (int64_t i = 0; i < size / 2; ++i) {
      const bool halves = params.rope_style == RopeStyle::kHalves;
      double& a = v[halves ? i : 2 * i];
      double& b = v[halves ? i + size / 2 : 2 * i + 1];
      const double x = a;
      const double y = b;
      a = x * rope[i] - y * rope[size / 2 + i];
      b = y * rope[i] + x * rope[size / 2 + i];
    }
  }
  return out;
}

TEST_P(ElementwiseTest, PrepareQkvMatchesADoubleReferenceInBothStyles) {
  constexpr AttentionShape kShape = {5, 2, 24};
  constexpr int64_t kCols = 9 * 24;
  const std::vector<int32_t> positions = {0, 1, 17, 39, 3};
  Matrix rope = RopeTable(40, 24);
  Matrix bias = Matrix::Random(1, kCols, 57);
  Matrix q_norm = Matrix::Random(1, 24, 58);
  Matrix k_norm = Matrix::Random(1, 24, 59);
  for (const bool with_extras : {false, true}) {
    for (const RopeStyle style : {RopeStyle::kHalves, RopeStyle::kInterleaved}) {
      QkvParams params;
      params.shape = kShape;
      params.norm_epsilon = 1e-6f;
      params.rope = rope.view();
      params.rope_style = style;
      if (with_extras) {
        params.bias = bias.vector_view();
        params.q_norm = q_norm.vector_view();
        params.k_norm = k_norm.vector_view();
      }
      const Matrix before = Matrix::Random(5, kCols, 60);
      Matrix after = before;
      Matrix portable = before;
      ASSERT_THAT(MakeBackend(GetParam())->PrepareQkv(after.view(), params, positions), IsOk());
      ASSERT_THAT(MakeBackend(Isa::kPortable)->PrepareQkv(portable.view(), params, positions),
                  IsOk());
      EXPECT_TRUE(SameBits(after.values, portable.values)) << "seeds 57 to 60";
      for (int64_t t = 0; t < 5; ++t) {
        const std::vector<double> expected =
            PrepareReference(params, before.row(t), positions[static_cast<size_t>(t)]);
        for (int64_t i = 0; i < kCols; ++i) {
          ASSERT_NEAR(after.at(t, i), expected[static_cast<size_t>(i)], 4e-6) << t << " " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, ElementwiseTest, ::testing::ValuesIn(SupportedIsas()),
                         testing::IsaTestName);

TEST(CpuBackendTest, GathersRowsInTheGivenOrder) {
  const auto backend = MakeBackend(Isa::kAuto);
  Matrix x = Matrix::Random(6, 5, 61);
  Matrix out(3, 5);
  const std::vector<int32_t> rows = {5, 0, 5};
  ASSERT_THAT(backend->GatherRows(out.view(), x.view(), rows), IsOk());
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_EQ(out.at(0, i), x.at(5, i));
    EXPECT_EQ(out.at(1, i), x.at(0, i));
    EXPECT_EQ(out.at(2, i), x.at(5, i));
  }
  const std::vector<int32_t> outside = {0, 6, 1};
  EXPECT_THAT(backend->GatherRows(out.view(), x.view(), outside),
              FailsWith(absl::StatusCode::kInternal, "row 6 of [6, 5]"));
}

TEST(CpuBackendTest, NamesTheInstructionSetItRunsOn) {
  for (const Isa isa : SupportedIsas()) {
    EXPECT_EQ(MakeBackend(isa)->name(), "cpu (" + std::string(IsaName(isa)) + ")");
  }
  const Isa best = SupportedIsas().back();
  EXPECT_EQ(MakeBackend(Isa::kAuto)->name(), MakeBackend(best)->name());
}

TEST(CpuBackendTest, RefusesThreadCountsAndInstructionSetsItDoesNotHave) {
  EXPECT_THAT(MakeCpuBackend({.threads = 0}),
              FailsWith(absl::StatusCode::kInvalidArgument, "threads = 0"));
  EXPECT_THAT(MakeCpuBackend({.threads = 5000}),
              FailsWith(absl::StatusCode::kInvalidArgument, "threads = 5000"));
  for (const Isa isa : {Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (IsaSupported(isa)) continue;
    EXPECT_THAT(MakeCpuBackend({.isa = isa}),
                FailsWith(absl::StatusCode::kFailedPrecondition, "not available"));
  }
}

TEST(CpuBackendTest, RefusesUploadsOfUnequalRowsAndHugeActivations) {
  const auto backend = MakeBackend(Isa::kAuto);
  const std::vector<float> values(7);
  EXPECT_THAT(backend->Upload(values, 2),
              FailsWith(absl::StatusCode::kInvalidArgument, "7 values"));
  EXPECT_THAT(backend->AllocateActivation(int64_t{1} << 40, int64_t{1} << 40),
              FailsWith(absl::StatusCode::kInvalidArgument, "activation"));
  EXPECT_THAT(backend->Reserve(0, 64), FailsWith(absl::StatusCode::kInvalidArgument, "0 tokens"));
}

}  // namespace
}  // namespace asymserve
