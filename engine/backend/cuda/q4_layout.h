#pragma once

#include <cstdint>

#include "engine/base/tensor.h"

// How 4-bit weights lie on the device, for the host that packs them (q4_pack.h) and the kernels
// that read them (q4_decode.cuh). A matrix is cut into tiles of 32 rows, one after the other, the
// last filled up with zeros. Columns are taken in blocks of 32. A tile of B blocks is, in this
// order,
//
//   codes   [B][8][4]   4 words, of rows g, g + 8, g + 16 and g + 24: byte i of word t has column
//                       4 t + i in its low half, 4 t + i + 16 in its high half
//   scales  [B][8]      of rows g, g + 8, g + 16 and g + 24:
//             Q4_0  4 x fp16 d                   w = (q - 8) d
//             Q4_1  4 x (fp16 d, fp16 m)         w = q d + m
//             Q4_K  4 x (uint8 s, uint8 t)       w = q (d s) - dm t
//   supers  [B / 8][8]  Q4_K only: 4 x (fp16 d, fp16 dm) of the same rows, for eight blocks
//
// which are as many bytes as in a GGUF file, but for the rows that fill the last tile (Q4_K: 148
// for 144, as its 6-bit scales take a byte). A lane 4 g + t of a warp reads 16 bytes of codes,
// which are its part of two A fragments of mma.m16n8k16, and the warp 512 in one piece.

namespace asymserve::cuda {

inline constexpr int32_t kQ4TileRows = 32;
inline constexpr int32_t kQ4Block = 32;       // columns
inline constexpr int32_t kQ4CodeBytes = 16;   // of a row and block
inline constexpr int32_t kQ4RowGroups = 8;    // g above
inline constexpr int32_t kQ4LaneRows = 4;     // of a group
inline constexpr int32_t kQ4SuperBlocks = 8;  // that share a super scale

/// The types that are kept so.
constexpr bool IsQ4(DType type) {
  return type == DType::kQ4_0 || type == DType::kQ4_1 || type == DType::kQ4K;
}

/// Where the parts of a tile begin, in bytes. `cols`: a multiple of the type's block.
struct Q4Layout {
  constexpr Q4Layout(DType type, int64_t cols)
      : blocks(static_cast<int32_t>(cols / kQ4Block)),
        scale_bytes(type == DType::kQ4_1 ? 16 : 8),
        scales(int64_t{blocks} * kQ4TileRows * kQ4CodeBytes),
        supers(scales + int64_t{blocks} * kQ4RowGroups * scale_bytes),
        tile_bytes(supers + (type == DType::kQ4K
                                 ? int64_t{blocks} / kQ4SuperBlocks * kQ4RowGroups * 16
                                 : 0)) {}

  /// Of a lane, as above.
  constexpr int64_t CodesAt(int64_t block, int64_t lane) const {
    return (block * kQ4TileRows + lane) * kQ4CodeBytes;
  }
  /// Byte `byte` of 16 of a row: the columns `byte` and `byte` + 16.
  constexpr int64_t CodeByteAt(int64_t block, int64_t row, int64_t byte) const {
    return CodesAt(block, row % kQ4RowGroups * 4 + byte / 4) + row / kQ4RowGroups * 4 + byte % 4;
  }
  constexpr int64_t ScalesAt(int64_t block, int64_t group) const {
    return scales + (block * kQ4RowGroups + group) * scale_bytes;
  }
  constexpr int64_t SupersAt(int64_t block, int64_t group) const {
    return supers + (block / kQ4SuperBlocks * kQ4RowGroups + group) * 16;
  }

  int32_t blocks;
  int32_t scale_bytes;  // of a block and group
  int64_t scales;
  int64_t supers;
  int64_t tile_bytes;  // a multiple of 64
};

constexpr int64_t Q4Tiles(int64_t rows) {
  return (rows + kQ4TileRows - 1) / kQ4TileRows;
}

}  // namespace asymserve::cuda
