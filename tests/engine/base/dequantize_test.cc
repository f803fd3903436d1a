#include "engine/base/dequantize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace asymserve {
namespace {

struct GoldenRow {
  std::string type;
  std::vector<std::byte> bytes;
  std::vector<uint32_t> bits;
};

std::vector<uint32_t> ParseHex(const std::string& text, size_t digits) {
  std::vector<uint32_t> words;
  for (size_t i = 0; i + digits <= text.size(); i += digits) {
    words.push_back(static_cast<uint32_t>(std::stoul(text.substr(i, digits), nullptr, 16)));
  }
  return words;
}

std::vector<GoldenRow> ReadGolden() {
  std::ifstream file(ASYMSERVE_SOURCE_DIR "/tests/golden/dequantize.txt");
  std::vector<GoldenRow> rows;
  std::string type;
  std::string bytes;
  std::string bits;
  while (file >> type >> bytes >> bits) {
    GoldenRow row{type, {}, ParseHex(bits, 8)};
    for (const uint32_t byte : ParseHex(bytes, 2)) row.bytes.push_back(std::byte(byte));
    rows.push_back(row);
  }
  return rows;
}

TEST(DequantizeTest, ReadsEveryTypeBitForBitAsTheGgufPackageDoes) {
  const std::map<std::string, DType> types = {
      {"F32", DType::kF32},   {"F16", DType::kF16},   {"BF16", DType::kBF16},
      {"Q8_0", DType::kQ8_0}, {"Q4_0", DType::kQ4_0}, {"Q4_1", DType::kQ4_1},
      {"Q4_K", DType::kQ4K},  {"Q5_K", DType::kQ5K},  {"Q6_K", DType::kQ6K}};
  std::map<std::string, int> rows_of_type;
  for (const GoldenRow& row : ReadGolden()) {
    SCOPED_TRACE(row.type);
    ASSERT_TRUE(types.contains(row.type));
    ++rows_of_type[row.type];
    const DType dtype = types.at(row.type);
    const auto elements = static_cast<int64_t>(row.bits.size());
    ASSERT_EQ(static_cast<int64_t>(row.bytes.size()), RowBytes(dtype, elements));
    std::vector<uint32_t> actual;
    for (const float value : DequantizeRow(dtype, row.bytes.data(), elements)) {
      actual.push_back(std::bit_cast<uint32_t>(value));
    }
    EXPECT_EQ(actual, row.bits);
  }
  EXPECT_EQ(rows_of_type.size(), types.size());
}

TEST(DequantizeTest, ReadsARowOfSeveralBlocksFromAnUnalignedAddress) {
  std::vector<std::byte> bytes(1 + 2 * 18);
  bytes[2] = std::byte{0x3C};           // block 0: d = 1.0
  bytes[1 + 18 + 1] = std::byte{0x40};  // block 1: d = 2.0
  bytes[1 + 18 + 2] = std::byte{0x9F};  // its weights 0 and 16: 15 - 8 and 9 - 8
  const std::vector<float> values = DequantizeRow(DType::kQ4_0, bytes.data() + 1, 64);
  ASSERT_EQ(values.size(), 64u);
  EXPECT_EQ(values[0], -8.0f);
  EXPECT_EQ(values[32], 14.0f);
  EXPECT_EQ(values[48], 2.0f);
  EXPECT_EQ(values[33], -16.0f);
}

}  // namespace
}  // namespace asymserve
