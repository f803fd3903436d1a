#include "engine/base/dequantize.h"

#include <cstring>

#include "engine/base/check.h"
#include "engine/base/float16.h"

// The blocks, in memory order. d, m: fp16 scale and offset; q: unsigned integers unless said
// otherwise; nibble i of 16 bytes is the low half of byte i for i < 16, else the high half of byte
// i - 16.
//
//   Q8_0  d, int8 q[32]                              x = q d
//   Q4_0  d, nibbles q[32]                           x = (q - 8) d
//   Q4_1  d, m, nibbles q[32]                        x = q d + m
//   Q4_K  d, dm, packed scales[12], qs[128]          x = q (d s_j) - dm m_j, 32 weights per j
//   Q5_K  d, dm, packed scales[12], qh[32], qs[128]  as Q4_K with a fifth bit from qh
//   Q6_K  ql[128], qh[64], int8 s[16], d             x = (q - 32) (d s_j), 16 weights per j

namespace asymserve {
namespace {

const uint8_t* AsBytes(const std::byte* data) {
  return reinterpret_cast<const uint8_t*>(data);
}

float LoadHalf(const uint8_t* bytes) {
  return HalfToFloat(static_cast<uint16_t>(bytes[0] | (bytes[1] << 8)));
}

void DequantizeQ80(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

int Nibble(const uint8_t* bytes, int i) {
  return i < 16 ? bytes[i] & 15 : bytes[i - 16] >> 4;
}

void DequantizeQ40(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(Nibble(block + 2, i) - 8) * d;
}

void DequantizeQ41(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  for (int i = 0; i < 32; ++i) {
    const float product = static_cast<float>(Nibble(block + 4, i)) * d;
    out[i] = product + m;
  }
}

/// Q4_K without, Q5_K with the high bits `qh`. Sub-blocks 2g and 2g + 1 are the low and the high
/// nibbles of the same 32 bytes.
void DequantizeQ45K(const uint8_t* block, const uint8_t* qh, const uint8_t* qs, float* out) {
  const float d = LoadHalf(block);
  const float dm = LoadHalf(block + 2);
  for (int j = 0; j < 8; ++j) {
    const PackedScale unpacked = UnpackScale(reinterpret_cast<const std::byte*>(block) + 4, j);
    const float scale = d * static_cast<float>(unpacked.scale);
    const float min = dm * static_cast<float>(unpacked.min);
    for (int i = 0; i < 32; ++i) {
      const uint8_t byte = qs[j / 2 * 32 + i];
      int q = j % 2 == 0 ? byte & 15 : byte >> 4;
      if (qh != nullptr) q |= ((qh[i] >> j) & 1) << 4;
      const float product = scale * static_cast<float>(q);
      out[j * 32 + i] = product - min;
    }
  }
}

void DequantizeQ6K(const uint8_t* block, float* out) {
  const uint8_t* scales = block + 192;
  const float d = LoadHalf(block + 208);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128;          // 64 bytes of ql and 32 of qh each
    const int quarter = i % 128 / 32;  // ql: 0, 1 low nibbles; 2, 3 high nibbles
    const int lane = i % 32;
    const uint8_t low = block[half * 64 + quarter % 2 * 32 + lane];
    const uint8_t high = block[128 + half * 32 + lane];
    const int q = (quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4);
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[i / 16]));
    out[i] = scale * static_cast<float>(q - 32);
  }
}

void DequantizeBlock(DType dtype, const uint8_t* block, float* out) {
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, block, sizeof(float));
      return;
    case DType::kF16:
      *out = LoadHalf(block);
      return;
    case DType::kBF16:
      *out = BrainToFloat(static_cast<uint16_t>(block[0] | (block[1] << 8)));
      return;
    case DType::kQ8_0:
      return DequantizeQ80(block, out);
    case DType::kQ4_0:
      return DequantizeQ40(block, out);
    case DType::kQ4_1:
      return DequantizeQ41(block, out);
    case DType::kQ4K:
      return DequantizeQ45K(block, nullptr, block + 16, out);
    case DType::kQ5K:
      return DequantizeQ45K(block, block + 16, block + 48, out);
    case DType::kQ6K:
      return DequantizeQ6K(block, out);
    case DType::kI32:
    case DType::kI8:
      break;
  }
  ASYMSERVE_CHECK(false && "not a type of weights");
}

}  // namespace

// The first four of each lie in the low six bits of bytes 0-3 and 4-7; the last four have low
// halves in bytes 8-11 and their top two bits in the top of bytes 0-3 and 4-7.
PackedScale UnpackScale(const std::byte* packed, int sub) {
  const uint8_t* s = AsBytes(packed);
  const auto pair = [](int scale, int min) {
    return PackedScale{static_cast<uint8_t>(scale), static_cast<uint8_t>(min)};
  };
  if (sub < 4) return pair(s[sub] & 63, s[sub + 4] & 63);
  return pair((s[sub + 4] & 15) | ((s[sub - 4] >> 6) << 4),
              (s[sub + 4] >> 4) | ((s[sub] >> 6) << 4));
}

std::vector<float> DequantizeRow(DType dtype, const std::byte* row, int64_t elements) {
  const DTypeInfo info = Info(dtype);
  ASYMSERVE_CHECK(elements >= 0 && elements % info.block_elements == 0);
  std::vector<float> values(static_cast<size_t>(elements));
  for (int64_t i = 0; i < elements / info.block_elements; ++i) {
    DequantizeBlock(dtype, AsBytes(row) + i * info.block_bytes,
                    values.data() + i * info.block_elements);
  }
  return values;
}

}  // namespace asymserve
