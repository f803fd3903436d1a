#include "engine/backend/cpu/pack.h"

#include <cstring>

#include "engine/backend/cpu/packed_format.h"
#include "engine/base/check.h"
#include "engine/base/float16.h"

// The blocks of the file's formats are those of GGUF (ggml-common.h, dequantize_row_* in
// ggml-quants.c of ggml). Four codes are moved at a time, as a 32-bit word: word j of a block holds
// inputs 4 j to 4 j + 3, which is what one column has in tile j.

namespace asymserve {
namespace {

uint32_t LoadWord(const std::byte* p) {
  uint32_t word;
  std::memcpy(&word, p, sizeof(word));
  return word;
}
void StoreWord(std::byte* p, uint32_t word) {
  std::memcpy(p, &word, sizeof(word));
}
uint16_t LoadShort(const std::byte* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof(value));
  return value;
}

/// Sub-block `sub` of a row goes to `codes`, where its column's first word of tile 0 is.
using PackCodes = void (*)(const std::byte* block, int sub, std::byte* codes);
/// The scales of a block go to `scales` at column `column`.
using PackScales = void (*)(const std::byte* block, int column, std::byte* scales);

// ---- 32-weight blocks -------------------------------------------------------------------------

// Q4_0: fp16 d, 16 bytes: weights 0-15 in the low, 16-31 in the high nibbles. Q4_1: fp16 d, m
// first.
template <int kHeader>
void PackNibbles(const std::byte* block, int /*sub*/, std::byte* codes) {
  for (int j = 0; j < 4; ++j) {
    StoreWord(codes + j * kTileBytes, LoadWord(block + kHeader + 4 * j));
  }
}

// Q8_0: fp16 d, 32 signed bytes; stored plus 128.
void PackBytes(const std::byte* block, int /*sub*/, std::byte* codes) {
  for (int j = 0; j < 8; ++j) {
    StoreWord(codes + j * kTileBytes, LoadWord(block + 2 + 4 * j) ^ 0x80808080u);
  }
}

void PackScale(const std::byte* block, int column, std::byte* scales) {
  std::memcpy(scales + 2 * column, block, 2);
}
void PackScaleAndMin(const std::byte* block, int column, std::byte* scales) {
  std::memcpy(scales + 2 * column, block, 2);
  std::memcpy(scales + 32 + 2 * column, block + 2, 2);
}

// ---- 256-weight blocks ------------------------------------------------------------------------

constexpr uint32_t kNibbleMask = 0x0F0F0F0Fu;

// Word j (of 8) of 32 codes of four bits which lie in 32 bytes, in the nibble at `shift`.
uint32_t NibbleWord(const std::byte* bytes, int j, int shift) {
  return (LoadWord(bytes + 4 * j) >> shift) & kNibbleMask;
}
void PackSharedNibbles(const std::byte* bytes, int shift, std::byte* codes) {
  for (int j = 0; j < 4; ++j) {
    StoreWord(codes + j * kTileBytes,
              NibbleWord(bytes, j, shift) | (NibbleWord(bytes, j + 4, shift) << 4));
  }
}

// Q4_K: fp16 d, dmin; 12 bytes of scales; 128 bytes: sub-blocks 2 i and 2 i + 1 in the low and high
// nibbles of bytes [32 i, 32 i + 32).
void PackQ4K(const std::byte* block, int sub, std::byte* codes) {
  PackSharedNibbles(block + 16 + sub / 2 * 32, sub % 2 * 4, codes);
}

// Q5_K: as Q4_K with 32 bytes of fifth bits before the nibbles: bit `sub` of byte k for weight k.
void PackQ5K(const std::byte* block, int sub, std::byte* codes) {
  PackSharedNibbles(block + 48 + sub / 2 * 32, sub % 2 * 4, codes);
  uint32_t fifth = 0;
  for (int j = 0; j < 8; ++j) {
    fifth |= ((LoadWord(block + 16 + 4 * j) >> sub) & 0x01010101u) << j;
  }
  StoreWord(codes + 4 * kTileBytes, fifth);
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of upper pairs of bits, 16 signed scales, fp16 d. Of
// each half, sub-blocks 0, 1 have the low and 2, 3 the high nibbles of its 2 x 32 bytes, and
// sub-block i has bits 2 i of its 32 bytes of pairs.
void PackQ6K(const std::byte* block, int sub, std::byte* codes) {
  const int half = sub / 4;
  const int quarter = sub % 4;
  PackSharedNibbles(block + half * 64 + quarter % 2 * 32, quarter / 2 * 4, codes);
  const std::byte* pairs = block + 128 + half * 32;
  for (int part = 0; part < 2; ++part) {
    uint32_t upper = 0;
    for (int j = 0; j < 4; ++j) {
      const uint32_t word = LoadWord(pairs + 16 * part + 4 * j);
      upper |= ((word >> (2 * quarter)) & 0x03030303u) << (2 * j);
    }
    StoreWord(codes + (4 + part) * kTileBytes, upper);
  }
}

// Six-bit scales and mins of Q4_K and Q5_K: sub-blocks 0-3 in the low six bits of bytes 0-3 and
// 4-7; 4-7 in the nibbles of bytes 8-11, with their upper two bits at the top of bytes 0-3 and 4-7.
void PackMinScales(const std::byte* block, int column, std::byte* scales) {
  auto* packed = reinterpret_cast<MinScales*>(scales);
  packed->d[column] = LoadShort(block);
  packed->dmin[column] = LoadShort(block + 2);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block + 4);
  for (int sub = 0; sub < 4; ++sub) {
    packed->scale[sub][column] = bytes[sub] & 63;
    packed->min[sub][column] = bytes[sub + 4] & 63;
    packed->scale[sub + 4][column] =
        static_cast<uint8_t>((bytes[sub + 8] & 15) | (bytes[sub] >> 6 << 4));
    packed->min[sub + 4][column] =
        static_cast<uint8_t>((bytes[sub + 8] >> 4) | (bytes[sub + 4] >> 6 << 4));
  }
}

void PackHalfScales(const std::byte* block, int column, std::byte* scales) {
  auto* packed = reinterpret_cast<HalfScales*>(scales);
  packed->d[column] = LoadShort(block + 208);
  for (int sub = 0; sub < kSubBlocks; ++sub) {
    for (int half = 0; half < 2; ++half) {
      packed->scale[sub][half][column] = static_cast<int8_t>(block[192 + 2 * sub + half]);
    }
  }
}

struct Packing {
  int block;           // weights
  int sub_code_bytes;  // of 16 columns x 32 weights
  int scale_bytes;     // of 16 columns x block
  PackCodes pack_codes;
  PackScales pack_scales;
};

template <typename Layout>
constexpr Packing MakePacking(PackCodes pack_codes, PackScales pack_scales) {
  return {Layout::kBlock, Layout::kCodeBytes / (Layout::kBlock / kQuantBlock), Layout::kScaleBytes,
          pack_codes, pack_scales};
}

constexpr Packing kQ4_0 = MakePacking<Q4_0Layout>(PackNibbles<2>, PackScale);
constexpr Packing kQ4_1 = MakePacking<Q4_1Layout>(PackNibbles<4>, PackScaleAndMin);
constexpr Packing kQ8_0 = MakePacking<Q8_0Layout>(PackBytes, PackScale);
constexpr Packing kQ4K = MakePacking<Q4KLayout>(PackQ4K, PackMinScales);
constexpr Packing kQ5K = MakePacking<Q5KLayout>(PackQ5K, PackMinScales);
constexpr Packing kQ6K = MakePacking<Q6KLayout>(PackQ6K, PackHalfScales);

/// Null for types that are not quantized.
const Packing* FindPacking(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return &kQ4_0;
    case DType::kQ4_1:
      return &kQ4_1;
    case DType::kQ8_0:
      return &kQ8_0;
    case DType::kQ4K:
      return &kQ4K;
    case DType::kQ5K:
      return &kQ5K;
    case DType::kQ6K:
      return &kQ6K;
    default:
      return nullptr;
  }
}

bool IsFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

void PackFloats(const std::byte* row, int64_t value_bytes, int column, int64_t cols,
                std::byte* panel) {
  for (int64_t k = 0; k < cols; ++k) {
    std::byte* target = panel + (k * kPanelColumns + column) * value_bytes;
    if (value_bytes == 4) {
      StoreWord(target, LoadWord(row + 4 * k));
    } else {
      std::memcpy(target, row + 2 * k, 2);
    }
  }
}

// ---- Columns of panels ------------------------------------------------------------------------

int Nibble(const uint8_t* codes, int k, int column) {
  const int tile = k / 4;
  const uint8_t byte = codes[tile % 4 * kTileBytes + 4 * column + k % 4];
  return tile < 4 ? byte & 15 : byte >> 4;
}

int Code(DType dtype, const uint8_t* codes, int k, int column) {
  const int tile = k / 4;
  const int byte = 4 * column + k % 4;
  switch (dtype) {
    case DType::kQ8_0:
      return codes[tile * kTileBytes + byte] - 128;
    case DType::kQ4_0:
      return Nibble(codes, k, column) - 8;
    case DType::kQ5K:
      return Nibble(codes, k, column) | ((codes[4 * kTileBytes + byte] >> tile & 1) << 4);
    case DType::kQ6K: {
      const uint8_t upper = codes[(4 + tile / 4) * kTileBytes + byte];
      return (Nibble(codes, k, column) | ((upper >> (2 * (tile % 4)) & 3) << 4)) - 32;
    }
    default:
      return Nibble(codes, k, column);
  }
}

struct ScaleAndMin {
  float scale;
  float min;
};

ScaleAndMin Scale(DType dtype, const std::byte* scales, int64_t sub, int half, int column) {
  switch (dtype) {
    case DType::kQ4K:
    case DType::kQ5K: {
      const auto& super = reinterpret_cast<const MinScales*>(scales)[sub / kSubBlocks];
      const int64_t i = sub % kSubBlocks;
      return {HalfToFloat(super.d[column]) * static_cast<float>(super.scale[i][column]),
              -(HalfToFloat(super.dmin[column]) * static_cast<float>(super.min[i][column]))};
    }
    case DType::kQ6K: {
      const auto& super = reinterpret_cast<const HalfScales*>(scales)[sub / kSubBlocks];
      return {HalfToFloat(super.d[column]) *
                  static_cast<float>(super.scale[sub % kSubBlocks][half][column]),
              0};
    }
    case DType::kQ4_1: {
      const std::byte* pair = scales + sub * Q4_1Layout::kScaleBytes + 2 * column;
      return {HalfToFloat(LoadShort(pair)), HalfToFloat(LoadShort(pair + 32))};
    }
    default:
      return {HalfToFloat(LoadShort(scales + sub * Q4_0Layout::kScaleBytes + 2 * column)), 0};
  }
}

float FloatValue(DType dtype, const std::byte* panel, int64_t index) {
  if (dtype == DType::kF32) {
    float value;
    std::memcpy(&value, panel + 4 * index, sizeof(value));
    return value;
  }
  const uint16_t bits = LoadShort(panel + 2 * index);
  return dtype == DType::kF16 ? HalfToFloat(bits) : BrainToFloat(bits);
}

}  // namespace

int64_t PanelBytes(DType dtype, int64_t cols) {
  if (IsFloat(dtype)) return cols * kPanelColumns * Info(dtype).block_bytes;
  const Packing* packing = FindPacking(dtype);
  ASYMSERVE_CHECK(packing != nullptr);
  const int64_t bytes =
      cols / kQuantBlock * packing->sub_code_bytes + cols / packing->block * packing->scale_bytes;
  return (bytes + 63) / 64 * 64;
}

void PackPanel(DType dtype, const std::byte* const (&rows)[16], int64_t cols, std::byte* panel) {
  const Packing* packing = FindPacking(dtype);
  for (int column = 0; column < kPanelColumns; ++column) {
    const std::byte* row = rows[column];
    if (row == nullptr) continue;  // the panel's memory is zero
    if (packing == nullptr) {
      PackFloats(row, Info(dtype).block_bytes, column, cols, panel);
      continue;
    }
    std::byte* codes = panel + 4 * column;
    std::byte* scales = panel + cols / kQuantBlock * packing->sub_code_bytes;
    for (int64_t b = 0; b < cols / packing->block; ++b) {
      for (int sub = 0; sub < packing->block / kQuantBlock; ++sub) {
        packing->pack_codes(row, sub, codes);
        codes += packing->sub_code_bytes;
      }
      packing->pack_scales(row, column, scales);
      scales += packing->scale_bytes;
      row += Info(dtype).block_bytes;
    }
  }
}

void UnpackColumn(DType dtype, const std::byte* panel, int column, int64_t cols, float* out) {
  const Packing* packing = FindPacking(dtype);
  if (packing == nullptr) {
    for (int64_t k = 0; k < cols; ++k) {
      out[k] = FloatValue(dtype, panel, k * kPanelColumns + column);
    }
    return;
  }
  const int64_t blocks = cols / kQuantBlock;
  const std::byte* scales = panel + blocks * packing->sub_code_bytes;
  for (int64_t b = 0; b < blocks; ++b) {
    const auto* codes = reinterpret_cast<const uint8_t*>(panel + b * packing->sub_code_bytes);
    for (int half = 0; half < 2; ++half) {
      const ScaleAndMin s = Scale(dtype, scales, b, half, column);
      for (int k = 16 * half; k < 16 * half + 16; ++k) {
        const float value = s.scale * static_cast<float>(Code(dtype, codes, k, column));
        out[b * kQuantBlock + k] = value + s.min;
      }
    }
  }
}

}  // namespace asymserve
