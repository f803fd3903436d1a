#include "engine/backend/cuda/products.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::MakeBackend;
using ::asymserve::testing::Matrix;
using ::asymserve::testing::Pack;
using ::asymserve::testing::SameBits;

/// A weight as the device has it.
struct StoredWeight {
  StoredWeight(const FileWeight& file, DType type, int32_t rows, int32_t cols)
      : bytes(static_cast<size_t>(rows) * static_cast<size_t>(RowBytes(type, cols))) {
    std::memcpy(bytes.data(), file.source().data, bytes.size());
    view = {bytes.data(), type, rows, cols};
  }

  std::vector<std::byte> bytes;
  cuda::MatrixView view;
};

/// x times w, the same in every order of threads, in a matrix that had `before` in all elements.
std::vector<float> ProductOf(const Matrix& x, const cuda::MatrixView& w, int64_t stride,
                             float before, int64_t blocks_in_y = cuda::kMostBlocksInY) {
  return simt::SameInEveryOrder([&] {
    std::vector<float> out(static_cast<size_t>(x.rows * stride), before);
    EXPECT_EQ(cuda::Product(out.data(), stride, x.row(0), x.rows, w, nullptr, blocks_in_y),
              cudaSuccess)
        << LaunchFault();
    return out;
  });
}

TEST(CudaProductTest, GivesTheBitsOfTheCpuForEveryUnquantizedType) {
  for (const DType type : {DType::kF32, DType::kF16, DType::kBF16}) {
    const std::array<int32_t, 3> shapes[] = {
        {1, 1, 1}, {17, 65, 33}, {3, 130, 96}, {16, 64, 32}, {33, 7, 71}};
    for (const auto& [rows, outputs, cols] : shapes) {
      SCOPED_TRACE(std::string(Info(type).name) + " " + std::to_string(rows) + " " +
                   std::to_string(outputs) + " " + std::to_string(cols));
      Matrix x = Matrix::Random(rows, cols, 5);
      const FileWeight file(type, outputs, cols, 6);
      const StoredWeight stored(file, type, outputs, cols);
      const std::unique_ptr<Backend> cpu = MakeBackend(Isa::kAuto);
      ASSERT_THAT(cpu->Reserve(rows, cols), IsOk());
      Matrix expected(rows, outputs);
      ASSERT_THAT(cpu->MatMul(expected.view(), x.view(), *Pack(*cpu, file)), IsOk());
      EXPECT_TRUE(SameBits(ProductOf(x, stored.view, outputs, std::nanf("")), expected.values));
    }
  }
}

TEST(CudaProductTest, ARowIsTheSameAloneAsInARun) {
  const int32_t cols = 45;
  const FileWeight file(DType::kF16, 70, cols, 7);
  const StoredWeight stored(file, DType::kF16, 70, cols);
  const Matrix x = Matrix::Random(37, cols, 8);
  const std::vector<float> all = ProductOf(x, stored.view, 70, 0);
  for (const int64_t row : {0, 15, 16, 36}) {
    Matrix one(1, cols);
    std::copy_n(x.row(row), cols, one.row(0));
    EXPECT_TRUE(SameBits(ProductOf(one, stored.view, 70, 0),
                         std::span(all).subspan(static_cast<size_t>(row) * 70, 70)))
        << "row " << row;
  }
}

TEST(CudaProductTest, LeavesWhatIsBetweenItsRowsAlone) {
  const FileWeight file(DType::kF32, 5, 9, 9);
  const StoredWeight stored(file, DType::kF32, 5, 9);
  const Matrix x = Matrix::Random(20, 9, 10);
  const std::vector<float> dense = ProductOf(x, stored.view, 5, 0);
  const std::vector<float> wide = ProductOf(x, stored.view, 8, 77.0f);
  for (size_t row = 0; row < 20; ++row) {
    for (size_t i = 0; i < 8; ++i) {
      EXPECT_EQ(wide[row * 8 + i], i < 5 ? dense[row * 5 + i] : 77.0f) << row << ", " << i;
    }
  }
}

TEST(CudaProductTest, RowsBeyondALaunchAreComputedByTheNext) {
  const FileWeight file(DType::kF32, 3, 40, 11);
  const StoredWeight stored(file, DType::kF32, 3, 40);
  const Matrix x = Matrix::Random(50, 40, 12);
  EXPECT_TRUE(SameBits(ProductOf(x, stored.view, 3, std::nanf(""), 1),
                       ProductOf(x, stored.view, 3, std::nanf(""))));
}

TEST(CudaProductTest, QuantizedWeightsAreRefused) {
  float out = 0;
  const float x = 0;
  const cuda::MatrixView w = {&x, DType::kQ4_1, 1, 32};
  EXPECT_EQ(cuda::Product(&out, 1, &x, 1, w, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace asymserve
