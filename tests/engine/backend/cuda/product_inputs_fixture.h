#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/backend/cuda/product_inputs.h"
#include "engine/base/float16.h"
#include "tests/engine/backend/cuda/device_arena.h"

namespace asymserve::testing {

/// x as RoundInputs gives it, in memory that was full of NaN.
class RoundedInputs {
 public:
  RoundedInputs(const Matrix& x, cuda::InputOrder order)
      : bytes_(static_cast<size_t>(cuda::ProductInputsBytes(x.rows, x.cols)), std::byte{0xFF}),
        inputs_(cuda::PlaceProductInputs(bytes_.data(), x.rows, x.cols, order)) {
    EXPECT_EQ(cuda::RoundInputs(inputs_, x.row(0), x.rows, x.cols, nullptr), cudaSuccess)
        << LaunchFault();
  }
  const cuda::ProductInputs& get() const { return inputs_; }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
  cuda::ProductInputs inputs_;
};

/// What RoundInputs is to make of a finite row.
struct RoundedRow {
  RoundedRow(const float* x, int64_t cols) {
    float largest = 0;
    for (int64_t k = 0; k < cols; ++k) largest = std::max(largest, std::fabs(x[k]));
    const int exponent = largest == 0 ? -1000 : std::ilogb(largest);
    scale = std::ldexp(1.0f, std::max(exponent, -112) - 14);
    for (int64_t k = 0; k < cols; ++k) {
      const double scaled = double{x[k]} / scale;
      values.push_back(HalfToFloat(FloatToHalf(static_cast<float>(scaled))));
    }
  }
  /// Of a block of 32: neighbours, then pairs, and so on.
  float Sum(int64_t block) const {
    std::vector<float> level(values.begin() + 32 * block, values.begin() + 32 * (block + 1));
    while (level.size() > 1) {
      for (size_t i = 0; i < level.size() / 2; ++i) level[i] = level[2 * i] + level[2 * i + 1];
      level.resize(level.size() / 2);
    }
    return level[0];
  }

  float scale = 0;
  std::vector<float> values;
};

}  // namespace asymserve::testing
