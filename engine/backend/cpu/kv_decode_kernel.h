#pragma once

#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/kernels.h"
#include "engine/kv/quantizer.h"

namespace asymserve {

/// Scalar blocks as floats in a thread's scratch, which stays in the first-level cache: keys
/// [D][64], values [64][D]. The same numbers as kv/codec.h, but kFitted values stay rotated. Every
/// instruction set gives the same bits.
template <typename V>
struct KvDecode {
  using F32 = typename V::F32;

  /// `count` fp16 numbers, a multiple of 16.
  static void Halves(const uint8_t* p, int32_t count, float* out) {
    for (int32_t i = 0; i < count; i += 16) {
      V::Store(out + i, V::LoadHalf(reinterpret_cast<const uint16_t*>(p) + i));
    }
  }

  /// Row `row` of a scalar block: `count` codes, evenly spaced levels per group.
  template <typename LevelsOf>
  static void ScalarRow(const uint8_t* codes, int64_t row_bytes, int32_t bits, int32_t count,
                        int32_t group_size, LevelsOf levels_of, float* out) {
    const int32_t mask = (1 << bits) - 1;
    for (int32_t i = 0; i < 8 / bits; ++i) {
      for (int64_t j = 0; j < row_bytes; ++j) {
        out[i * row_bytes + j] = static_cast<float>(codes[j] >> (i * bits) & mask);
      }
    }
    for (int32_t first = 0; first < count; first += group_size) {
      const Levels levels = levels_of(first / group_size);
      const int32_t last = first + group_size < count ? first + group_size : count;
      for (int32_t i = first; i < last; ++i) out[i] = levels.zero + levels.scale * out[i];
    }
  }

  static void Scalar(const KvItem& item, KvTensor tensor, int32_t head_size, const uint8_t* block,
                     float* out) {
    const ScalarBlock layout = ScalarBlockOf(item, tensor, head_size);
    const bool key = tensor == KvTensor::kKey;
    const int32_t rows = key ? head_size : kKvPageTokens;
    const int32_t count = key ? kKvPageTokens : head_size;
    const bool fitted = item.codec == KvCodec::kFitted;
    const int32_t group_size = fitted ? kFittedGroup : kMinMaxGroup;
    const int32_t groups = GroupsOf(count, group_size);
    FittedHeader header = {};
    float pairs[kKvPageTokens * kMaxKvHeadSize / kMinMaxGroup * 2];
    if (fitted) {
      std::memcpy(&header, block + layout.header, sizeof(header));
    } else {
      Halves(block + layout.scales, 2 * rows * groups, pairs);
    }
    for (int32_t row = 0; row < rows; ++row) {
      const auto levels_of = [&](int32_t g) {
        const int64_t group = int64_t{row} * groups + g;
        if (!fitted) return Levels{pairs[2 * group], pairs[2 * group + 1]};
        const CentredLevels levels = {
            header.largest_scale * ScaleFromCode(block[layout.scales + group]),
            header.smallest_mean +
                header.mean_step * static_cast<float>(block[layout.means + group])};
        return levels.ToLevels(item.bits);
      };
      ScalarRow(block + row * layout.row_bytes, layout.row_bytes, item.bits, count, group_size,
                levels_of, out + int64_t{row} * count);
    }
  }
};

}  // namespace asymserve
