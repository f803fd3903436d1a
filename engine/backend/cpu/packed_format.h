#pragma once

#include <cstdint>

// How weights and quantized activations lie in memory. Included by kernels that are compiled once
// per instruction set: constants and plain structs only, no functions, so that no code of one
// instruction set can be linked into another.
//
// A matrix [N, K] is cut into panels of 16 rows of the file (16 output columns). A panel of a
// quantized type is
//   codes   blocks x kCodeBytes     then
//   scales  blocks x kScaleBytes    then padding to 64 B
// and each run of 32 inputs is 8 tiles of 64 B: byte 4 n + i of tile j is the unsigned code of
// column n and input 4 j + i. So a tile is what one VNNI instruction multiplies with four inputs of
// a row, and the eight are an AMX tile. Narrow codes share bytes:
//   low nibbles   256 B: tile j in the low, tile j + 4 in the high nibbles of bytes [64 j, 64 j+64)
//   Q5_K's fifth  64 B after them: bit j of byte i belongs to byte i of tile j
//   Q6_K's upper  128 B after them: bits 2 (j % 4) of byte i of half j / 4 belong to tile j
// A panel of F32, F16 or BF16 is [K][16] values.

namespace asymserve {

inline constexpr int kPanelColumns = 16;
inline constexpr int kQuantBlock = 32;  // activations are quantized by this many
inline constexpr int kTilesPerBlock = 8;
inline constexpr int kTileBytes = 64;
inline constexpr int kSubBlocks = 8;  // blocks of 32 in a super-block of the K types

struct Q4_0Layout {  // w = d (q - 8)
  static constexpr int kBlock = 32;
  static constexpr int kCodeBytes = 256;
  static constexpr int kScaleBytes = 32;
};
struct Q4_1Layout {  // w = d q + m
  static constexpr int kBlock = 32;
  static constexpr int kCodeBytes = 256;
  static constexpr int kScaleBytes = 64;
};
struct Q8_0Layout {  // w = d (q - 128)
  static constexpr int kBlock = 32;
  static constexpr int kCodeBytes = 512;
  static constexpr int kScaleBytes = 32;
};
/// Scales of a super-block of Q4_K and Q5_K: w = d scale q - dmin min.
struct MinScales {
  uint16_t d[16];
  uint16_t dmin[16];
  uint8_t scale[kSubBlocks][16];
  uint8_t min[kSubBlocks][16];
};
struct Q4KLayout {
  static constexpr int kBlock = 256;
  static constexpr int kSubCodeBytes = 256;
  static constexpr int kCodeBytes = kSubBlocks * kSubCodeBytes;
  static constexpr int kScaleBytes = sizeof(MinScales);
};
struct Q5KLayout {
  static constexpr int kBlock = 256;
  static constexpr int kSubCodeBytes = 320;
  static constexpr int kCodeBytes = kSubBlocks * kSubCodeBytes;
  static constexpr int kScaleBytes = sizeof(MinScales);
};
/// Scales of a super-block of Q6_K: w = d scale (q - 32), a scale for each 16 inputs.
struct HalfScales {
  uint16_t d[16];
  int8_t scale[kSubBlocks][2][16];
};
struct Q6KLayout {
  static constexpr int kBlock = 256;
  static constexpr int kSubCodeBytes = 384;
  static constexpr int kCodeBytes = kSubBlocks * kSubCodeBytes;
  static constexpr int kScaleBytes = sizeof(HalfScales);
};
static_assert(sizeof(MinScales) == 320 && sizeof(HalfScales) == 288);

inline constexpr int kTileRows = 16;

/// 32 inputs of 16 rows: x = scale q, |q| <= 127. A row whose block holds a NaN or an infinity has
/// scale NaN, and so NaN in every output. Row tiles follow each other; within one, blocks.
struct alignas(64) ActivationBlock {
  int8_t q[kTileRows][kQuantBlock];
  float scale[kTileRows];
  float scaled_sum[kTileRows];          // scale * sum of q
  int32_t negative_sum[kTileRows];      // - sum of q
  int32_t negative_half[2][kTileRows];  // of inputs 0-15 and 16-31
};

}  // namespace asymserve
