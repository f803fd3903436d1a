#pragma once

#include <cstdint>

#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"

// The bytes of one block: the 64 tokens of one (layer, tensor, KV head) of a page. P = 64 tokens, D
// channels, b bits; all numbers little-endian. One definition for backends, kernels and tests.
//
//   kHalf    keys   fp16 [D][P]           values fp16 [P][D]; also those of exact pages
//   kInt8    keys   u8 [D/4][P][4] = 128 + code, fp16 scale [P]
//            values s8 [P/4][D][4] = code,       fp16 scale [P]      x' = scale * code, |code| <=
//            127
//   kMinMax  keys   bits [D][P b/8], then fp16 {scale, zero} [D][P/32]
//            values bits [P][D b/8], then fp16 {scale, zero} [P][ceil(D/32)]
//   kFitted  keys   bits [D][P b/8], u8 scale [D], u8 mean [D], header
//            values bits [P][D b/8], u8 scale [P][ceil(D/64)], u8 mean [P][ceil(D/64)], header
//            header = fp32 {largest scale, smallest mean, step of the means}
//            scale' = largest * 2^(-u8/16), mean' = smallest + step * u8 (kv/quantizer.h)
//   kPlanes  u8 [planes/2][P] = code of plane 2i | code of plane 2i + 1 << 4
//
// `bits` of n codes, n a multiple of 8 and stride = n b/8 bytes: byte j holds the codes of elements
// j, j + stride, j + 2 stride ... from its lowest bits on. Blocks are padded to 64 bytes.

namespace asymserve {

inline constexpr int32_t kKvPageTokens = 64;
inline constexpr int32_t kMinMaxGroup = 32;
inline constexpr int32_t kFittedGroup = 64;
inline constexpr int32_t kMaxKvHeadSize = 256;
inline constexpr int64_t kKvBlockAlignment = 64;

struct FittedHeader {
  float largest_scale;
  float smallest_mean;
  float mean_step;
};

[[gnu::always_inline]] constexpr int32_t GroupsOf(int32_t channels, int32_t group) {
  return (channels + group - 1) / group;
}

constexpr int64_t PadKvBlock(int64_t bytes) {
  return (bytes + kKvBlockAlignment - 1) / kKvBlockAlignment * kKvBlockAlignment;
}

/// Where the parts of a scalar block start, and how long it is without padding.
struct ScalarBlock {
  int64_t row_bytes;  // of the codes of a row: keys a channel, values a token
  int64_t scales;     // kMinMax: pairs {scale, zero}
  int64_t means;      // kFitted
  int64_t header;     // kFitted
  int64_t bytes;
};

[[gnu::always_inline]] constexpr ScalarBlock ScalarBlockOf(const KvItem& item, KvTensor tensor,
                                                           int32_t head_size) {
  const bool key = tensor == KvTensor::kKey;
  const int64_t rows = key ? head_size : kKvPageTokens;
  const int32_t row = key ? kKvPageTokens : head_size;
  ScalarBlock block = {};
  block.row_bytes = int64_t{row} * item.bits / 8;
  block.scales = rows * block.row_bytes;
  if (item.codec == KvCodec::kMinMax) {
    block.bytes = block.scales + rows * GroupsOf(row, kMinMaxGroup) * 4;
  } else {
    const int64_t groups = rows * GroupsOf(row, kFittedGroup);
    block.means = block.scales + groups;
    block.header = block.means + groups;
    block.bytes = block.header + static_cast<int64_t>(sizeof(FittedHeader));
  }
  return block;
}

/// Bytes that carry information, without padding; kPlanes: of `planes` planes.
constexpr int64_t KvBlockBytes(const KvItem& item, KvTensor tensor, int32_t head_size,
                               int32_t planes) {
  switch (item.codec) {
    case KvCodec::kHalf:
      return int64_t{2} * head_size * kKvPageTokens;
    case KvCodec::kInt8:
      return int64_t{head_size} * kKvPageTokens + 2 * kKvPageTokens;
    case KvCodec::kMinMax:
    case KvCodec::kFitted:
      return ScalarBlockOf(item, tensor, head_size).bytes;
    case KvCodec::kPlanes:
      return int64_t{planes} / 2 * kKvPageTokens;
  }
  return 0;
}

/// Code `index` of a row of `row_bytes` bytes in `bits`.
constexpr uint8_t LoadCode(const uint8_t* row, int64_t row_bytes, int32_t bits, int64_t index) {
  const auto shift = static_cast<int32_t>(index / row_bytes) * bits;
  return static_cast<uint8_t>(row[index % row_bytes] >> shift & ((1 << bits) - 1));
}

/// ORs a code into a row that was zero.
constexpr void StoreCode(uint8_t* row, int64_t row_bytes, int32_t bits, int64_t index,
                         uint8_t code) {
  const auto shift = static_cast<int32_t>(index / row_bytes) * bits;
  row[index % row_bytes] = static_cast<uint8_t>(row[index % row_bytes] | code << shift);
}

/// Writes token `slot` of a near block (kHalf or kInt8). A value that the format cannot hold, and
/// NaN, are stored as NaN: kHalf the value, kInt8 the token's scale.
void StoreNear(KvCodec near, KvTensor tensor, int32_t head_size, int32_t slot, const float* x,
               uint8_t* block);
/// Reads a near block into x [P][D].
void LoadNear(KvCodec near, KvTensor tensor, int32_t head_size, const uint8_t* block, float* x);

/// Encodes x [P][D] into `base` and, for kPlanes with fresh planes, `refinement`; both are wholly
/// written, padding included. Keys of kPlanes are those rotated back to their frame. kInt8 and
/// kFitted values are as they come (EncodeBlock rotates kFitted values itself). `code` is used by
/// kPlanes only. Deterministic, whatever the instruction set.
void EncodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const float* x, uint8_t* base, uint8_t* refinement);
/// The inverse: out [P][D], what is stored. `refinement` null: base planes only.
void DecodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const uint8_t* base, const uint8_t* refinement, float* out);

/// x [n] times the orthonormal Hadamard matrix, in blocks of the largest powers of two: 80 = 64 +
/// 16. Its own inverse.
void Hadamard(float* x, int32_t n);

}  // namespace asymserve
