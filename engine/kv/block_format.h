#pragma once

#include <cstdint>

#include "engine/base/float16.h"
#include "engine/kv/item.h"
#include "engine/kv/quantizer.h"

// The bytes of one block: the 64 tokens of one (layer, tensor, KV head) of a page. P = 64 tokens, D
// channels, b bits; all numbers little-endian. One definition for backends, kernels and tests, host
// and device.
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
// j, j + stride, j + 2 stride ... from its lowest bits on. Blocks are padded to 64 bytes. A NaN in
// fp16 is 0x7E00, in fp32 0x7FC00000.

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

/// Code `index` of a row of `row_bytes` bytes in `bits`. Divides in 32 bits, which a GPU can.
constexpr uint8_t LoadCode(const uint8_t* row, int64_t row_bytes, int32_t bits, int64_t index) {
  const auto stride = static_cast<uint32_t>(row_bytes);
  const uint32_t lane = static_cast<uint32_t>(index) / stride;
  const uint32_t byte = static_cast<uint32_t>(index) % stride;
  return static_cast<uint8_t>(row[byte] >> (lane * static_cast<uint32_t>(bits)) &
                              ((1 << bits) - 1));
}

/// ORs a code into a row that was zero.
constexpr void StoreCode(uint8_t* row, int64_t row_bytes, int32_t bits, int64_t index,
                         uint8_t code) {
  const auto shift = static_cast<int32_t>(index / row_bytes) * bits;
  row[index % row_bytes] = static_cast<uint8_t>(row[index % row_bytes] | code << shift);
}

// ---- Near blocks ------------------------------------------------------------------------------

/// Which element of a kHalf block belongs to a token and channel.
constexpr int64_t HalfIndex(KvTensor tensor, int32_t head_size, int32_t token, int32_t channel) {
  return tensor == KvTensor::kKey ? int64_t{channel} * kKvPageTokens + token
                                  : int64_t{token} * head_size + channel;
}

/// Which byte of a kInt8 block does.
constexpr int64_t Int8Index(KvTensor tensor, int32_t head_size, int32_t token, int32_t channel) {
  return tensor == KvTensor::kKey ? (int64_t{channel} / 4 * kKvPageTokens + token) * 4 + channel % 4
                                  : (int64_t{token} / 4 * head_size + channel) * 4 + token % 4;
}

/// Where the scale of a token of a kInt8 block is, in bytes.
constexpr int64_t Int8ScaleOffset(int32_t head_size, int32_t token) {
  return int64_t{head_size} * kKvPageTokens + 2 * token;
}

/// fp16, with NaN for what does not fit.
constexpr uint16_t HalfOrNan(float value) {
  constexpr uint16_t kInfinity = 0x7C00;
  const uint16_t half = FloatToHalf(value);
  return (half & kInfinity) == kInfinity ? uint16_t{0x7E00} : half;
}

/// The scale of a kInt8 token, in fp16, whose largest magnitude is `largest`; NaN when that is
/// infinite or NaN.
constexpr uint16_t Int8Scale(float largest) {
  constexpr float kLargestFloat = 3.40282347e38f;
  return largest <= kLargestFloat ? HalfOrNan(largest / 127.0f) : uint16_t{0x7E00};
}

/// The byte that a channel of a kInt8 token is stored as.
constexpr uint8_t Int8Byte(KvTensor tensor, float x, float scale) {
  float code = scale > 0.0f ? x / scale : 0.0f;
  code = code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : RoundToEven(code);
  const int32_t bias = tensor == KvTensor::kKey ? 128 : 0;
  return static_cast<uint8_t>(static_cast<int32_t>(code) + bias);
}

constexpr float Int8Value(KvTensor tensor, uint8_t byte, float scale) {
  const int32_t code = tensor == KvTensor::kKey ? byte - 128 : static_cast<int8_t>(byte);
  return scale * static_cast<float>(code);
}

// ---- Scalar blocks ------------------------------------------------------------------------------

/// The levels that a kFitted block's header and a group's two bytes mean.
constexpr Levels FittedLevels(const FittedHeader& header, uint8_t scale, uint8_t mean,
                              int32_t bits) {
  const CentredLevels levels = {header.largest_scale * ScaleFromCode(scale),
                                header.smallest_mean + header.mean_step * static_cast<float>(mean)};
  return levels.ToLevels(bits);
}

/// The byte for a group's scale.
constexpr uint8_t FittedScaleCode(const FittedHeader& header, float scale) {
  return header.largest_scale > 0.0f ? ScaleToCode(scale / header.largest_scale) : uint8_t{0};
}

/// The byte for a group's mean.
constexpr uint8_t FittedMeanCode(const FittedHeader& header, float mean) {
  return NearestCode(mean, {header.mean_step, header.smallest_mean}, 8);
}

/// The header of the fits of `groups` groups.
template <typename Fits>
constexpr FittedHeader FittedHeaderOf(const Fits& fits, int32_t groups) {
  const CentredLevels first = fits[0];
  FittedHeader header = {0.0f, first.mean, 0.0f};
  float largest_mean = first.mean;
  for (int32_t group = 0; group < groups; ++group) {
    const CentredLevels fit = fits[group];
    header.largest_scale = header.largest_scale < fit.scale ? fit.scale : header.largest_scale;
    header.smallest_mean = fit.mean < header.smallest_mean ? fit.mean : header.smallest_mean;
    largest_mean = largest_mean < fit.mean ? fit.mean : largest_mean;
  }
  header.mean_step = OneNan((largest_mean - header.smallest_mean) / 255.0f);
  header.smallest_mean = OneNan(header.smallest_mean);
  return header;
}

}  // namespace asymserve
