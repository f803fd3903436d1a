#include "engine/kv/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine/base/check.h"
#include "engine/base/float16.h"
#include "engine/kv/hadamard.h"
#include "engine/kv/quantizer.h"

namespace asymserve {
namespace {

constexpr int32_t kP = kKvPageTokens;

uint16_t LoadHalf(const uint8_t* p) {
  uint16_t half;
  std::memcpy(&half, p, sizeof(half));
  return half;
}

void StoreHalf(uint8_t* p, uint16_t half) {
  std::memcpy(p, &half, sizeof(half));
}

// ---- Near blocks ------------------------------------------------------------------------------

void StoreInt8Token(KvTensor tensor, int32_t head_size, int32_t slot, const float* x,
                    uint8_t* block) {
  float largest = 0.0f;
  for (int32_t d = 0; d < head_size; ++d) {
    const float magnitude = std::fabs(x[d]);
    largest = magnitude <= largest ? largest : magnitude;  // NaN stays, whatever comes after
    if (std::isnan(magnitude)) break;
  }
  const uint16_t half = Int8Scale(largest);
  const float scale = HalfToFloat(half);
  for (int32_t d = 0; d < head_size; ++d) {
    block[Int8Index(tensor, head_size, slot, d)] = Int8Byte(tensor, x[d], scale);
  }
  StoreHalf(block + Int8ScaleOffset(head_size, slot), half);
}

void LoadInt8Token(KvTensor tensor, int32_t head_size, const uint8_t* block, int32_t token,
                   float* x) {
  const float scale = HalfToFloat(LoadHalf(block + Int8ScaleOffset(head_size, token)));
  for (int32_t d = 0; d < head_size; ++d) {
    x[d] = Int8Value(tensor, block[Int8Index(tensor, head_size, token, d)], scale);
  }
}

// ---- Scalar blocks ----------------------------------------------------------------------------

/// Calls visit(row, first, count, group, x, stride) for each group: `count` values from element
/// `first` of row `row` on, of group number `group`.
template <typename Visit>
void ForGroups(KvTensor tensor, int32_t head_size, int32_t group_size, const float* x,
               Visit visit) {
  const bool key = tensor == KvTensor::kKey;
  const int32_t rows = key ? head_size : kP;
  const int32_t row_elements = key ? kP : head_size;
  const int64_t row_stride = key ? 1 : head_size;
  const int64_t stride = key ? head_size : 1;
  int32_t group = 0;
  for (int32_t row = 0; row < rows; ++row) {
    for (int32_t first = 0; first < row_elements; first += group_size) {
      visit(row, first, std::min(group_size, row_elements - first), group++,
            x + row * row_stride + first * stride, stride);
    }
  }
}

void EncodeGroup(const ScalarBlock& layout, int32_t bits, Levels levels, int32_t row, int32_t first,
                 int32_t count, const float* x, int64_t stride, uint8_t* block) {
  uint8_t* codes = block + row * layout.row_bytes;
  for (int32_t i = 0; i < count; ++i) {
    StoreCode(codes, layout.row_bytes, bits, first + i, NearestCode(x[i * stride], levels, bits));
  }
}

void EncodeMinMax(const KvItem& item, KvTensor tensor, int32_t head_size, const float* x,
                  uint8_t* block) {
  const ScalarBlock layout = ScalarBlockOf(item, tensor, head_size);
  ForGroups(tensor, head_size, kMinMaxGroup, x,
            [&](int32_t row, int32_t first, int32_t count, int32_t group, const float* values,
                int64_t stride) {
              const Levels levels = MinMaxLevels(values, count, stride, item.bits);
              uint8_t* pair = block + layout.scales + int64_t{4} * group;
              StoreHalf(pair, FloatToHalf(levels.scale));
              StoreHalf(pair + 2, FloatToHalf(levels.zero));
              EncodeGroup(layout, item.bits, levels, row, first, count, values, stride, block);
            });
}

void EncodeFitted(const KvItem& item, KvTensor tensor, int32_t head_size, const float* x,
                  uint8_t* block) {
  const ScalarBlock layout = ScalarBlockOf(item, tensor, head_size);
  std::array<CentredLevels, kMaxKvHeadSize> fits = {};  // groups: D, or kP ceil(D/64) <= 256
  int32_t groups = 0;
  ForGroups(
      tensor, head_size, kFittedGroup, x,
      [&](int32_t, int32_t, int32_t count, int32_t group, const float* values, int64_t stride) {
        fits[static_cast<size_t>(group)] = FitLevels(values, count, stride, item.bits);
        groups = group + 1;
      });
  const FittedHeader header = FittedHeaderOf(fits.data(), groups);
  std::memcpy(block + layout.header, &header, sizeof(header));
  ForGroups(tensor, head_size, kFittedGroup, x,
            [&](int32_t row, int32_t first, int32_t count, int32_t group, const float* values,
                int64_t stride) {
              const CentredLevels& fit = fits[static_cast<size_t>(group)];
              const uint8_t scale = FittedScaleCode(header, fit.scale);
              const uint8_t mean = FittedMeanCode(header, fit.mean);
              block[layout.scales + group] = scale;
              block[layout.means + group] = mean;
              EncodeGroup(layout, item.bits, FittedLevels(header, scale, mean, item.bits), row,
                          first, count, values, stride, block);
            });
}

void DecodeScalar(const KvItem& item, KvTensor tensor, int32_t head_size, const uint8_t* block,
                  float* out) {
  const ScalarBlock layout = ScalarBlockOf(item, tensor, head_size);
  FittedHeader header = {};
  const bool fitted = item.codec == KvCodec::kFitted;
  if (fitted) std::memcpy(&header, block + layout.header, sizeof(header));
  ForGroups(tensor, head_size, fitted ? kFittedGroup : kMinMaxGroup, out,
            [&](int32_t row, int32_t first, int32_t count, int32_t group, const float* place,
                int64_t stride) {
              float* values = out + (place - out);
              const uint8_t* pair = block + layout.scales + int64_t{4} * group;
              const Levels levels =
                  fitted ? FittedLevels(header, block[layout.scales + group],
                                        block[layout.means + group], item.bits)
                         : Levels{HalfToFloat(LoadHalf(pair)), HalfToFloat(LoadHalf(pair + 2))};
              for (int32_t i = 0; i < count; ++i) {
                const uint8_t code = LoadCode(block + row * layout.row_bytes, layout.row_bytes,
                                              item.bits, first + i);
                values[i * stride] = levels.zero + levels.scale * static_cast<float>(code);
              }
            });
}

// ---- Planes -----------------------------------------------------------------------------------

void StorePlanes(const uint8_t* codes, int32_t first, int32_t last, int32_t token, uint8_t* block) {
  for (int32_t p = first; p < last; p += 2) {
    block[int64_t{p - first} / 2 * kP + token] = static_cast<uint8_t>(codes[p] | codes[p + 1] << 4);
  }
}

void EncodePlanesBlock(const KvItem& item, int32_t head_size, const PlaneCode& code, const float* x,
                       uint8_t* base, uint8_t* refinement) {
  const int32_t planes = refinement != nullptr ? item.fresh_planes : item.base_planes;
  ASYMSERVE_CHECK(code.planes() >= planes && code.head_size == head_size);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
  std::array<float, kMaxKvHeadSize> centred;
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
  std::array<float, kMaxKvHeadSize> z;
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
  std::array<uint8_t, 256> codes;
  for (int32_t token = 0; token < kP; ++token) {
    for (int32_t d = 0; d < head_size; ++d) {
      centred[static_cast<size_t>(d)] =
          x[int64_t{token} * head_size + d] - code.mean[static_cast<size_t>(d)];
    }
    TimesMatrix(centred.data(), code.encode.data(), head_size, z.data());
    EncodePlanes(code, planes, z.data(), codes.data());
    StorePlanes(codes.data(), 0, item.base_planes, token, base);
    if (refinement != nullptr) {
      StorePlanes(codes.data(), item.base_planes, item.fresh_planes, token, refinement);
    }
  }
}

void DecodePlanesBlock(const KvItem& item, int32_t head_size, const PlaneCode& code,
                       const uint8_t* base, const uint8_t* refinement, float* out) {
  const int32_t planes = refinement != nullptr ? item.fresh_planes : item.base_planes;
  for (int32_t token = 0; token < kP; ++token) {
    std::array<float, kMaxKvHeadSize> z = {};
    for (int32_t p = 0; p < planes; ++p) {
      const bool in_base = p < item.base_planes;
      const uint8_t* block = in_base ? base : refinement;
      const int32_t pair = (in_base ? p : p - item.base_planes) / 2;
      const uint8_t entry = block[int64_t{pair} * kP + token] >> (p % 2 * 4) & 15;
      float* channels = z.data() + 4 * code.subvector[static_cast<size_t>(p)];
      for (int32_t c = 0; c < 4; ++c) channels[c] += code.codebook(p)[c * 16 + entry];
    }
    float* row = out + int64_t{token} * head_size;
    TimesMatrix(z.data(), code.decode.data(), head_size, row);
    for (int32_t d = 0; d < head_size; ++d) row[d] += code.mean[static_cast<size_t>(d)];
  }
}

}  // namespace

void StoreNear(KvCodec near, KvTensor tensor, int32_t head_size, int32_t slot, const float* x,
               uint8_t* block) {
  if (near == KvCodec::kInt8) return StoreInt8Token(tensor, head_size, slot, x, block);
  for (int32_t d = 0; d < head_size; ++d) {
    StoreHalf(block + 2 * HalfIndex(tensor, head_size, slot, d), HalfOrNan(x[d]));
  }
}

void LoadNear(KvCodec near, KvTensor tensor, int32_t head_size, const uint8_t* block, float* x) {
  for (int32_t token = 0; token < kP; ++token) {
    float* row = x + int64_t{token} * head_size;
    if (near == KvCodec::kInt8) {
      LoadInt8Token(tensor, head_size, block, token, row);
      continue;
    }
    for (int32_t d = 0; d < head_size; ++d) {
      row[d] = HalfToFloat(LoadHalf(block + 2 * HalfIndex(tensor, head_size, token, d)));
    }
  }
}

void EncodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const float* x, uint8_t* base, uint8_t* refinement) {
  const int64_t bytes = PadKvBlock(KvBlockBytes(item, tensor, head_size, item.base_planes));
  std::memset(base, 0, static_cast<size_t>(bytes));
  switch (item.codec) {
    case KvCodec::kHalf:
    case KvCodec::kInt8:
      for (int32_t token = 0; token < kP; ++token) {
        StoreNear(item.codec, tensor, head_size, token, x + int64_t{token} * head_size, base);
      }
      return;
    case KvCodec::kMinMax:
      return EncodeMinMax(item, tensor, head_size, x, base);
    case KvCodec::kFitted: {
      if (tensor == KvTensor::kKey) return EncodeFitted(item, tensor, head_size, x, base);
      // NOLINTNEXTLINE(cppcoreguidelines-pro-type-member-init): written before it is read
      std::array<float, size_t{kP} * kMaxKvHeadSize> rotated;
      std::copy_n(x, int64_t{kP} * head_size, rotated.begin());
      for (int32_t token = 0; token < kP; ++token) {
        Hadamard(rotated.data() + int64_t{token} * head_size, head_size);
      }
      return EncodeFitted(item, tensor, head_size, rotated.data(), base);
    }
    case KvCodec::kPlanes:
      return EncodePlanesBlock(item, head_size, *code, x, base,
                               item.fresh_planes > item.base_planes ? refinement : nullptr);
  }
}

void DecodeBlock(const KvItem& item, KvTensor tensor, int32_t head_size, const PlaneCode* code,
                 const uint8_t* base, const uint8_t* refinement, float* out) {
  switch (item.codec) {
    case KvCodec::kHalf:
    case KvCodec::kInt8:
      return LoadNear(item.codec, tensor, head_size, base, out);
    case KvCodec::kMinMax:
      return DecodeScalar(item, tensor, head_size, base, out);
    case KvCodec::kFitted:
      DecodeScalar(item, tensor, head_size, base, out);
      for (int32_t token = 0; tensor == KvTensor::kValue && token < kP; ++token) {
        Hadamard(out + int64_t{token} * head_size, head_size);
      }
      return;
    case KvCodec::kPlanes:
      return DecodePlanesBlock(item, head_size, *code, base, refinement, out);
  }
}

void Hadamard(float* x, int32_t n) {
  HadamardInPlace(x, n);
}

}  // namespace asymserve
