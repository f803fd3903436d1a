#include "engine/backend/cuda/q4_pack.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "engine/base/float16.h"
#include "tests/engine/backend/cuda/q4_fixture.h"

namespace asymserve {
namespace {

using ::asymserve::testing::FileWeight;
using ::asymserve::testing::kQ4Types;
using ::asymserve::testing::PackQ4;

float HalfAt(const std::byte* bytes) {
  uint16_t half = 0;
  std::memcpy(&half, bytes, sizeof(half));
  return HalfToFloat(half);
}

/// A weight by the text of q4_layout.h, in plain index arithmetic.
float WeightAt(DType type, const std::vector<std::byte>& tiles, int64_t cols, int64_t row,
               int64_t col) {
  const int64_t blocks = cols / 32;
  const int64_t scale_bytes = type == DType::kQ4_1 ? 16 : 8;
  const int64_t super_bytes = type == DType::kQ4K ? blocks / 8 * 8 * 16 : 0;
  const std::byte* tile =
      tiles.data() + row / 32 * (blocks * 512 + blocks * 8 * scale_bytes + super_bytes);
  const int64_t in_tile = row % 32;
  const int64_t block = col / 32;
  const int64_t in_block = col % 32;
  const int64_t byte_of_row = in_block % 16;
  const int64_t lane = in_tile % 8 * 4 + byte_of_row / 4;
  const auto byte =
      static_cast<int>(tile[block * 512 + lane * 16 + in_tile / 8 * 4 + byte_of_row % 4]);
  const auto code = static_cast<float>(in_block < 16 ? byte & 15 : byte >> 4);
  const std::byte* scales = tile + blocks * 512 + (block * 8 + in_tile % 8) * scale_bytes;
  const int64_t of = in_tile / 8;
  if (type == DType::kQ4_0) return (code - 8) * HalfAt(scales + 2 * of);
  if (type == DType::kQ4_1) {
    return std::fma(code, HalfAt(scales + 4 * of), HalfAt(scales + 4 * of + 2));
  }
  const std::byte* supers =
      tile + blocks * 512 + blocks * 8 * scale_bytes + (block / 8 * 8 + in_tile % 8) * 16 + 4 * of;
  const float scale = HalfAt(supers) * static_cast<float>(scales[2 * of]);
  const float min = HalfAt(supers + 2) * static_cast<float>(scales[2 * of + 1]);
  return std::fma(code, scale, -min);
}

class Q4PackTest : public ::testing::TestWithParam<DType> {};

TEST_P(Q4PackTest, TilesHoldTheWeightsOfTheFile) {
  for (const int64_t rows : {1, 31, 32, 33, 75}) {
    const int64_t cols = 3 * Info(GetParam()).block_elements;
    const FileWeight file(GetParam(), rows, cols, 31);
    const std::vector<std::byte> tiles = PackQ4(file.source());
    for (int64_t row = 0; row < (rows + 31) / 32 * 32; ++row) {
      const std::vector<float> expected =
          row < rows ? file.Dequantized(row) : std::vector<float>(static_cast<size_t>(cols), 0);
      for (int64_t col = 0; col < cols; ++col) {
        ASSERT_EQ(WeightAt(GetParam(), tiles, cols, row, col), expected[static_cast<size_t>(col)])
            << rows << " rows: " << row << ", " << col;
      }
    }
  }
}

TEST_P(Q4PackTest, TilesTakeTheBytesOfTheFile) {
  const int64_t cols = 8 * Info(GetParam()).block_elements;
  const FileWeight file(GetParam(), 64, cols, 32);
  const auto bytes = static_cast<int64_t>(PackQ4(file.source()).size());
  if (GetParam() == DType::kQ4K) {
    EXPECT_EQ(bytes, file.file_bytes() / 144 * 148);
  } else {
    EXPECT_EQ(bytes, file.file_bytes());
  }
}

TEST_P(Q4PackTest, InfiniteAndUndefinedScalesAreFound) {
  const DTypeInfo info = Info(GetParam());
  const int64_t cols = 3 * info.block_elements;
  const FileWeight file(GetParam(), 1, cols, 33);
  const WeightSource source = file.source();
  const std::vector<std::byte> good(source.data, source.data + RowBytes(GetParam(), cols));
  EXPECT_TRUE(cuda::HasFiniteScales(GetParam(), good.data(), cols));
  const size_t halves = GetParam() == DType::kQ4_0 ? 1 : 2;
  for (size_t block = 0; block < 3; ++block) {
    for (size_t half = 0; half < halves; ++half) {
      for (const auto high : {std::byte{0x7C}, std::byte{0xFE}}) {
        std::vector<std::byte> bad = good;
        bad[block * static_cast<size_t>(info.block_bytes) + 2 * half + 1] = high;
        EXPECT_FALSE(cuda::HasFiniteScales(GetParam(), bad.data(), cols)) << block << " " << half;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryType, Q4PackTest, ::testing::ValuesIn(kQ4Types),
                         [](const auto& type) { return Info(type.param).name; });

}  // namespace
}  // namespace asymserve
