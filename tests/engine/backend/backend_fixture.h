#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/base/dequantize.h"
#include "tests/support/random_weights.h"
#include "tests/support/status_matchers.h"

namespace asymserve::testing {

inline const Kernels& KernelsOf(Isa isa) {
  if (isa == Isa::kAmx) return *AmxKernels();
  if (isa == Isa::kAvx512) return *Avx512Kernels();
  if (isa == Isa::kAvx2) return *Avx2Kernels();
  return *PortableKernels();
}

inline std::unique_ptr<Backend> MakeBackend(Isa isa, int threads = 1) {
  auto backend = MakeCpuBackend({.threads = threads, .isa = isa});
  EXPECT_THAT(backend, IsOk());
  return *std::move(backend);
}

/// A matrix on the host; NaN until something is written.
struct Matrix {
  Matrix(int64_t row_count, int64_t col_count)
      : rows(row_count),
        cols(col_count),
        values(static_cast<size_t>(row_count * col_count), std::nanf("")) {}

  static Matrix Random(int64_t rows, int64_t cols, uint32_t seed, float sigma = 1) {
    Matrix matrix(rows, cols);
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, sigma);
    for (float& value : matrix.values) value = normal(generator);
    return matrix;
  }
  TensorView view() { return MakeMatrix(values.data(), rows, cols); }
  TensorView vector_view() { return MakeVector(values.data(), rows * cols); }
  float* row(int64_t r) { return values.data() + r * cols; }
  const float* row(int64_t r) const { return values.data() + r * cols; }
  float at(int64_t r, int64_t c) const { return values[static_cast<size_t>(r * cols + c)]; }

  int64_t rows;
  int64_t cols;
  std::vector<float> values;
};

/// Bit equality, all NaNs being equal.
inline bool SameBits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) return false;
  }
  return true;
}

/// Rows of random weights as a file holds them, at an odd address.
class FileWeight {
 public:
  FileWeight(DType dtype, int64_t rows, int64_t cols, uint64_t seed)
      : dtype_(dtype), rows_(rows), cols_(cols), bytes_("x") {
    for (int64_t row = 0; row < rows; ++row) {
      bytes_ += RandomRow(dtype, cols, 0, 0.05f, seed, "weight", row);
    }
  }
  WeightSource source() const { return {Row(0), dtype_, rows_, cols_}; }
  std::vector<float> Dequantized(int64_t row) const {
    return DequantizeRow(dtype_, Row(row), cols_);
  }
  int64_t file_bytes() const { return static_cast<int64_t>(bytes_.size()) - 1; }

 private:
  const std::byte* Row(int64_t row) const {
    return reinterpret_cast<const std::byte*>(bytes_.data()) + 1 + row * RowBytes(dtype_, cols_);
  }

  DType dtype_;
  int64_t rows_;
  int64_t cols_;
  std::string bytes_;
};

inline std::unique_ptr<Weight> Pack(Backend& backend, std::span<const WeightSource> parts) {
  auto weight = backend.PackWeight(parts);
  EXPECT_THAT(weight, IsOk());
  return *std::move(weight);
}
inline std::unique_ptr<Weight> Pack(Backend& backend, const FileWeight& weight) {
  const WeightSource source = weight.source();
  return Pack(backend, std::span(&source, 1));
}

inline std::string IsaTestName(const ::testing::TestParamInfo<Isa>& info) {
  return std::string(IsaName(info.param));
}

}  // namespace asymserve::testing
