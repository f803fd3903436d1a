#include "engine/backend/cuda/q4_pack.h"

#include <array>
#include <cstring>

#include "engine/backend/cuda/q4_layout.h"
#include "engine/base/dequantize.h"

// The blocks of a file are those of base/dequantize.cc.

namespace asymserve::cuda {
namespace {

constexpr int64_t kHalf = 2;  // bytes of an fp16

/// fp16 numbers at the start of a block: d, and m or dm.
int64_t HeaderHalves(DType type) {
  return type == DType::kQ4_0 ? 1 : 2;
}

/// Of a Q4_K block: the codes of sub-blocks 2 i and 2 i + 1 are the low and the high halves of the
/// same 32 bytes.
std::array<std::byte, kQ4CodeBytes> SubBlock(const std::byte* codes, int64_t sub) {
  constexpr int64_t kPairBytes = 32;
  const std::byte* pair = codes + sub / 2 * kPairBytes;
  const int shift = sub % 2 == 0 ? 0 : 4;
  std::array<std::byte, kQ4CodeBytes> sub_block = {};
  for (size_t i = 0; i < sub_block.size(); ++i) {
    const std::byte low = (pair[i] >> shift) & std::byte{15};
    const std::byte high = (pair[i + kQ4CodeBytes] >> shift) & std::byte{15};
    sub_block[i] = low | (high << 4);
  }
  return sub_block;
}

void PlaceCodes(const Q4Layout& layout, const std::byte* codes, int64_t block, int64_t row,
                std::byte* tile) {
  constexpr int64_t kWord = 4;
  for (int64_t i = 0; i < kQ4CodeBytes; i += kWord) {
    std::memcpy(tile + layout.CodeByteAt(block, row, i), codes + i, kWord);
  }
}

/// Block `block` of a row into its place for row `row` of the tile.
void PackBlock(DType type, const Q4Layout& layout, const std::byte* file_row, int64_t block,
               int64_t row, std::byte* tile) {
  constexpr int64_t kPackedScales = 12;  // bytes of Q4_K's
  const int64_t file_block = type == DType::kQ4K ? block / kQ4SuperBlocks : block;
  const std::byte* from = file_row + file_block * Info(type).block_bytes;
  const int64_t header = HeaderHalves(type) * kHalf;
  const int64_t group = row % kQ4RowGroups;
  const int64_t in_group = row / kQ4RowGroups;
  std::byte* scales =
      tile + layout.ScalesAt(block, group) + in_group * layout.scale_bytes / kQ4LaneRows;
  if (type != DType::kQ4K) {
    std::memcpy(scales, from, static_cast<size_t>(header));
    PlaceCodes(layout, from + header, block, row, tile);
    return;
  }
  const int64_t sub = block % kQ4SuperBlocks;
  const PackedScale packed = UnpackScale(from + header, static_cast<int>(sub));
  scales[0] = std::byte{packed.scale};
  scales[1] = std::byte{packed.min};
  std::memcpy(tile + layout.SupersAt(block, group) + in_group * header, from,
              static_cast<size_t>(header));
  PlaceCodes(layout, SubBlock(from + header + kPackedScales, sub).data(), block, row, tile);
}

}  // namespace

bool HasFiniteScales(DType type, const std::byte* row, int64_t cols) {
  const DTypeInfo info = Info(type);
  for (int64_t block = 0; block < cols / info.block_elements; ++block) {
    for (int64_t i = 0; i < HeaderHalves(type); ++i) {
      constexpr auto kExponent = std::byte{0x7C};  // all ones: infinity or NaN
      if ((row[block * info.block_bytes + i * kHalf + 1] & kExponent) == kExponent) return false;
    }
  }
  return true;
}

void PackQ4Tile(DType type, std::span<const std::byte* const> rows, int64_t cols, std::byte* tile) {
  const Q4Layout layout(type, cols);
  if (rows.size() < kQ4TileRows) std::memset(tile, 0, static_cast<size_t>(layout.tile_bytes));
  for (size_t row = 0; row < rows.size(); ++row) {
    for (int64_t block = 0; block < layout.blocks; ++block) {
      PackBlock(type, layout, rows[row], block, static_cast<int64_t>(row), tile);
    }
  }
}

}  // namespace asymserve::cuda
