#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "engine/backend/cuda/gather_rows.h"
#include "engine/backend/cuda/prepare_qkv.h"
#include "engine/backend/cuda/rms_norm.h"
#include "engine/backend/cuda/swiglu.h"
#include "engine/base/float16.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/engine/backend/cuda/q4_fixture.h"
#include "tests/simt/orders.h"

// The small operations against doubles, and against the CPU backend.

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::kQ4Types;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Q4Weight;
using ::asymserve::testing::RotaryTable;
using ::asymserve::testing::SameBits;

constexpr float kEpsilon = 1e-5f;

/// What `launch` writes into a matrix of NaN, the same in every order of threads.
Matrix OutOf(int64_t rows, int64_t cols, const std::function<cudaError_t(float*)>& launch) {
  Matrix out(rows, cols);
  out.values = simt::SameInEveryOrder([&] {
    std::vector<float> values(static_cast<size_t>(rows * cols), std::nanf(""));
    EXPECT_EQ(launch(values.data()), cudaSuccess) << LaunchFault();
    return values;
  });
  return out;
}

void ExpectNear(const Matrix& out, const Matrix& expected, double tolerance) {
  ASSERT_EQ(out.values.size(), expected.values.size());
  for (size_t i = 0; i < out.values.size(); ++i) {
    ASSERT_NEAR(out.values[i], expected.values[i], tolerance) << "element " << i;
  }
}

/// Row-wise RMSNorm in doubles.
Matrix NormReference(const Matrix& x, const Matrix& weight) {
  Matrix out(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    double squares = 0;
    for (int64_t c = 0; c < x.cols; ++c) squares += double{x.at(r, c)} * x.at(r, c);
    const double inverse = 1 / std::sqrt(squares / static_cast<double>(x.cols) + kEpsilon);
    for (int64_t c = 0; c < x.cols; ++c) {
      out.row(r)[c] = static_cast<float>(x.at(r, c) * inverse * weight.at(0, c));
    }
  }
  return out;
}

TEST(CudaRmsNormTest, IsThatOfDoublesForOddWidths) {
  for (const int32_t cols : {1, 31, 32, 257, 576, 1000}) {
    const Matrix x = Matrix::Random(5, cols, 1, 3);
    const Matrix weight = Matrix::Random(1, cols, 2);
    const Matrix out = OutOf(5, cols, [&](float* o) {
      return cuda::RmsNorm(o, x.row(0), weight.row(0), 5, cols, kEpsilon, nullptr);
    });
    ExpectNear(out, NormReference(x, weight), 5e-6);
  }
}

TEST(CudaRmsNormTest, AddsTheDeltaToTheResidualFirst) {
  const int32_t cols = 577;
  const Matrix before = Matrix::Random(3, cols, 3);
  const Matrix delta = Matrix::Random(3, cols, 4);
  const Matrix weight = Matrix::Random(1, cols, 5);
  Matrix residual = before;
  const Matrix out = OutOf(3, cols, [&](float* o) {
    residual = before;
    return cuda::AddRmsNorm(o, residual.row(0), delta.row(0), weight.row(0), 3, cols, kEpsilon,
                            nullptr);
  });
  Matrix sum = before;
  for (size_t i = 0; i < sum.values.size(); ++i) sum.values[i] += delta.values[i];
  EXPECT_EQ(residual.values, sum.values);
  ExpectNear(out, NormReference(sum, weight), 5e-6);
}

TEST(CudaRmsNormTest, ARowHasTheSameBitsAloneAndAmongOthers) {
  const int32_t cols = 576;
  const Matrix x = Matrix::Random(7, cols, 6);
  const Matrix weight = Matrix::Random(1, cols, 7);
  Matrix all(7, cols);
  Matrix one(1, cols);
  ASSERT_EQ(cuda::RmsNorm(all.row(0), x.row(0), weight.row(0), 7, cols, kEpsilon, nullptr),
            cudaSuccess);
  ASSERT_EQ(cuda::RmsNorm(one.row(0), x.row(5), weight.row(0), 1, cols, kEpsilon, nullptr),
            cudaSuccess);
  EXPECT_TRUE(SameBits(one.values, {all.row(5), all.row(6)}));
}

TEST(CudaSwiGluTest, IsThatOfDoublesAlsoWhereSiluSaturates) {
  for (const int32_t cols : {1, 255, 257, 1536}) {
    Matrix gate_up = Matrix::Random(3, int64_t{2} * cols, 8, 4);
    gate_up.row(0)[0] = -200;
    gate_up.row(1)[0] = 200;
    const Matrix out =
        OutOf(3, cols, [&](float* o) { return cuda::SwiGlu(o, gate_up.row(0), 3, cols, nullptr); });
    for (int64_t r = 0; r < 3; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const double gate = gate_up.at(r, c);
        const double expected = gate / (1 + std::exp(-gate)) * gate_up.at(r, cols + c);
        ASSERT_NEAR(out.at(r, c), expected, 1e-6 + 1e-6 * std::fabs(expected)) << r << " " << c;
      }
    }
  }
}

TEST(CudaSwiGluTest, RowsBeyondTheGridHaveTheBitsOfThoseInIt) {
  const Matrix gate_up = Matrix::Random(5, 2 * 257, 14);
  const auto rows_by = [&](int64_t blocks) {
    return OutOf(5, 257, [&, blocks](float* o) {
      return cuda::SwiGlu(o, gate_up.row(0), 5, 257, nullptr, blocks);
    });
  };
  EXPECT_TRUE(SameBits(rows_by(2).values, rows_by(cuda::kMostBlocksInY).values));
}

TEST(CudaGatherRowsTest, PicksRowsOfEveryTypeExactly) {
  constexpr int32_t kCols = 129;
  const Matrix table = Matrix::Random(11, kCols, 9);
  std::vector<uint16_t> half;
  std::vector<uint16_t> brain;
  for (const float x : table.values) {
    half.push_back(FloatToHalf(x));
    brain.push_back(static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16));
  }
  const std::vector<int32_t> index = {10, 0, 3, 3};
  const auto gather = [&](DType type, const void* rows) {
    return OutOf(4, kCols, [&, type, rows](float* o) {
      return cuda::GatherRows(o, rows, type, index.data(), 4, kCols, nullptr);
    });
  };
  const Matrix f32 = gather(DType::kF32, table.row(0));
  const Matrix f16 = gather(DType::kF16, half.data());
  const Matrix bf16 = gather(DType::kBF16, brain.data());
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t c = 0; c < kCols; ++c) {
      const auto at = static_cast<size_t>(index[static_cast<size_t>(r)] * kCols + c);
      EXPECT_EQ(f32.at(r, c), table.values[at]);
      EXPECT_EQ(f16.at(r, c), HalfToFloat(half[at]));
      EXPECT_EQ(bf16.at(r, c), BrainToFloat(brain[at]));
    }
  }
  EXPECT_EQ(cuda::GatherRows(nullptr, table.row(0), DType::kQ8_0, index.data(), 4, kCols, nullptr),
            cudaErrorInvalidValue);
}

TEST(CudaGatherRowsTest, GivesTheDequantizedRowsOfFourBitTables) {
  for (const DType type : kQ4Types) {
    SCOPED_TRACE(Info(type).name);
    const int32_t cols = 3 * Info(type).block_elements;
    const FileWeight file(type, 75, cols, 15);
    const Q4Weight table(file.source());
    const std::vector<int32_t> index = {74, 0, 31, 32, 9, 17, 26, 26};
    const auto rows = static_cast<int64_t>(index.size());
    const Matrix out = OutOf(rows, cols, [&](float* o) {
      return cuda::GatherRows(o, table.view.data, type, index.data(), rows, cols, nullptr);
    });
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> expected = file.Dequantized(index[static_cast<size_t>(r)]);
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(out.at(r, c), expected[static_cast<size_t>(c)]) << r << " " << c;
      }
    }
  }
}

struct QkvCase {
  AttentionShape shape;
  bool interleaved = false, bias = false, norms = false;
};

TEST(CudaPrepareQkvTest, IsThatOfTheCpuBackend) {
  const QkvCase cases[] = {{{3, 1, 64}, true, false, false},
                           {{4, 2, 80}, false, true, true},
                           {{2, 2, 24}, true, true, true},
                           {{5, 1, 256}, false, false, true}};
  for (const QkvCase& c : cases) {
    const int32_t size = c.shape.head_size;
    const int64_t cols = (c.shape.heads + int64_t{2} * c.shape.kv_heads) * size;
    const std::vector<int32_t> positions = {0, 17, 3};
    const Matrix before = Matrix::Random(3, cols, 10);
    Matrix bias = Matrix::Random(1, cols, 11);
    Matrix q_norm = Matrix::Random(1, size, 12);
    Matrix k_norm = Matrix::Random(1, size, 13);
    Matrix rope = RotaryTable(18, size);
    QkvParams params;
    params.shape = c.shape;
    if (c.bias) params.bias = bias.vector_view();
    if (c.norms) params.q_norm = q_norm.vector_view();
    if (c.norms) params.k_norm = k_norm.vector_view();
    params.norm_epsilon = kEpsilon;
    params.rope = rope.view();
    params.rope_style = c.interleaved ? RopeStyle::kInterleaved : RopeStyle::kHalves;
    Matrix expected = before;
    ASSERT_THAT(MakeBackend(Isa::kPortable)->PrepareQkv(expected.view(), params, positions),
                IsOk());
    const cuda::QkvArgs args = {.heads = c.shape.heads,
                                .kv_heads = c.shape.kv_heads,
                                .head_size = size,
                                .bias = c.bias ? bias.row(0) : nullptr,
                                .q_norm = c.norms ? q_norm.row(0) : nullptr,
                                .k_norm = c.norms ? k_norm.row(0) : nullptr,
                                .norm_epsilon = kEpsilon,
                                .rope = rope.row(0),
                                .interleaved = c.interleaved};
    const Matrix out = OutOf(3, cols, [&](float* o) {
      std::copy(before.values.begin(), before.values.end(), o);
      return cuda::PrepareQkv(o, args, positions.data(), 3, nullptr);
    });
    ExpectNear(out, expected, 5e-6);
    EXPECT_TRUE(c.norms || SameBits(out.values, expected.values)) << "no sum, so no rounding";
  }
  EXPECT_EQ(cuda::PrepareQkv(nullptr, {.head_size = 258}, nullptr, 1, nullptr),
            cudaErrorInvalidValue);
}

TEST(CudaElementwiseTest, NoRowsLaunchNothing) {
  EXPECT_EQ(cuda::RmsNorm(nullptr, nullptr, nullptr, 0, 8, 0, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::AddRmsNorm(nullptr, nullptr, nullptr, nullptr, 0, 8, 0, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::SwiGlu(nullptr, nullptr, 0, 8, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::GatherRows(nullptr, nullptr, DType::kF32, nullptr, 0, 8, nullptr), cudaSuccess);
  EXPECT_EQ(cuda::PrepareQkv(nullptr, {}, nullptr, 0, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace asymserve
