#include "engine/backend/cuda/product_inputs.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "tests/engine/backend/cuda/product_inputs_fixture.h"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::asymserve::testing::Matrix;
using ::asymserve::testing::RoundedInputs;
using ::asymserve::testing::RoundedRow;
using cuda::InputOrder;

constexpr int64_t kBlock = 32;
constexpr int64_t kTile = 8;

/// Element k of a block in a lane's fragments: the lane of the row and the half of its 8.
struct Place {
  int64_t lane, half;
};
Place PlaceOf(InputOrder order, int64_t k) {
  if (order == InputOrder::kNeighbours) return {k / 8, k % 8};
  // Columns 4 t + 0, 2, 1, 3, then the same of the second half of the block.
  constexpr std::array<int64_t, 4> kAt = {0, 2, 1, 3};
  return {k % 16 / 4, k / 16 * 4 + kAt[static_cast<size_t>(k % 4)]};
}

float ValueAt(const cuda::ProductInputs& x, int64_t blocks, int64_t row, int64_t col) {
  const Place place = PlaceOf(x.order, col % kBlock);
  const int64_t unit = row / kTile * blocks + col / kBlock;
  const FourWords& four = x.fragments[unit * 32 + row % kTile * 4 + place.lane];
  const uint32_t word = four.of[place.half / 2];
  return HalfToFloat(static_cast<uint16_t>(word >> (place.half % 2 * 16)));
}
float SumAt(const cuda::ProductInputs& x, int64_t blocks, int64_t row, int64_t block) {
  return x.sums[(row / kTile * blocks + block) * kTile + row % kTile];
}

void ExpectRow(const cuda::ProductInputs& x, int64_t row, const RoundedRow& expected) {
  const auto cols = static_cast<int64_t>(expected.values.size());
  ASSERT_EQ(x.scales[row], expected.scale);
  for (int64_t k = 0; k < cols; ++k) {
    ASSERT_EQ(ValueAt(x, cols / kBlock, row, k), expected.values[static_cast<size_t>(k)]) << k;
  }
  for (int64_t block = 0; block < cols / kBlock; ++block) {
    ASSERT_EQ(SumAt(x, cols / kBlock, row, block), expected.Sum(block)) << block;
  }
}

class ProductInputsTest : public ::testing::TestWithParam<InputOrder> {};

TEST_P(ProductInputsTest, ARowIsRoundedInItsOwnScaleAndTheLastTileIsFilledWithZeros) {
  // One block of columns; more than threads; a tile, a row more, two tiles.
  const std::array<int32_t, 2> shapes[] = {{1, 32}, {8, 96}, {9, 4128}, {16, 2048}, {19, 64}};
  for (const auto& [rows, cols] : shapes) {
    SCOPED_TRACE(std::to_string(rows) + " rows of " + std::to_string(cols));
    Matrix x = Matrix::Random(rows, cols, 71);
    for (int32_t t = 0; t < rows; ++t) {  // a row is up to 2^40 times another
      for (int32_t k = 0; k < cols; ++k) x.row(t)[k] *= std::ldexp(1.0f, 5 * (t % 9) - 20);
    }
    const auto bytes = simt::SameInEveryOrder([&] { return RoundedInputs(x, GetParam()).bytes(); });
    const RoundedInputs rounded(x, GetParam());
    for (int32_t t = 0; t < rows; ++t) {
      SCOPED_TRACE("row " + std::to_string(t));
      ExpectRow(rounded.get(), t, RoundedRow(x.row(t), cols));
    }
    const std::vector<float> zeros(static_cast<size_t>(cols), 0.0f);
    for (int64_t t = rows; t < (rows + kTile - 1) / kTile * kTile; ++t) {
      SCOPED_TRACE("behind the last, " + std::to_string(t));
      ExpectRow(rounded.get(), t, RoundedRow(zeros.data(), cols));
    }
  }
}

TEST_P(ProductInputsTest, WhatIsLostIsWhatTheHeaderSays) {
  const Matrix x = Matrix::Random(4, 1024, 72, 3.0f);
  const RoundedInputs rounded(x, GetParam());
  for (int32_t t = 0; t < 4; ++t) {
    const RoundedRow row(x.row(t), 1024);
    float largest = 0;
    for (int32_t k = 0; k < 1024; ++k) largest = std::max(largest, std::fabs(x.row(t)[k]));
    for (int32_t k = 0; k < 1024; ++k) {
      const double value = double{ValueAt(rounded.get(), 32, t, k)} * rounded.get().scales[t];
      EXPECT_LE(std::fabs(value - x.row(t)[k]),
                std::max(0x1p-11 * std::fabs(x.row(t)[k]), 0x1p-39 * largest));
    }
  }
}

TEST_P(ProductInputsTest, ExtremeRowsKeepTheirValues) {
  Matrix x(6, 32);
  for (int32_t k = 0; k < 32; ++k) {
    x.row(0)[k] = std::numeric_limits<float>::max() * (k % 2 == 0 ? 1 : -1);
    x.row(1)[k] = std::numeric_limits<float>::denorm_min();
    x.row(2)[k] = k == 5 ? 1e30f : 1e-30f;
    x.row(3)[k] = std::ldexp(1.0f, -112 - k % 3);
    x.row(4)[k] = -0.0f;
    x.row(5)[k] = 65519.0f;
  }
  const RoundedInputs rounded(x, GetParam());
  for (int32_t t = 0; t < x.rows; ++t) {
    SCOPED_TRACE("row " + std::to_string(t));
    ExpectRow(rounded.get(), t, RoundedRow(x.row(t), 32));
  }
}

TEST_P(ProductInputsTest, ARowWithNanOrInfinityHasNoScaleAndChangesNoOther) {
  const Matrix clean = Matrix::Random(11, 64, 73);
  Matrix x = clean;
  x.row(2)[40] = std::nanf("");
  x.row(5)[0] = -std::numeric_limits<float>::infinity();
  const RoundedInputs rounded(x, GetParam());
  for (int32_t t = 0; t < 11; ++t) {
    SCOPED_TRACE("row " + std::to_string(t));
    if (t == 2 || t == 5) {
      EXPECT_TRUE(std::isnan(rounded.get().scales[t]));
    } else {
      ExpectRow(rounded.get(), t, RoundedRow(clean.row(t), 64));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryOrder, ProductInputsTest,
                         ::testing::Values(InputOrder::kNeighbours, InputOrder::kInterleaved),
                         [](const auto& order) {
                           return order.param == InputOrder::kNeighbours ? "neighbours"
                                                                         : "interleaved";
                         });

TEST(ProductInputsRefusalTest, PlacesAndWidthsThatDoNotFitAreRefused) {
  std::vector<float> x(64, 0);
  std::vector<std::byte> memory(4096);
  const cuda::ProductInputs to =
      cuda::PlaceProductInputs(memory.data(), 1, 32, InputOrder::kNeighbours);
  EXPECT_EQ(cuda::RoundInputs(to, x.data() + 1, 1, 32, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::RoundInputs(to, x.data(), 1, 40, nullptr), cudaErrorInvalidValue);
  EXPECT_EQ(cuda::RoundInputs(to, x.data(), int64_t{1} << 40, 32, nullptr),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(cuda::RoundInputs(to, nullptr, 0, 32, nullptr), cudaSuccess) << "no rows";
}

}  // namespace
}  // namespace asymserve
