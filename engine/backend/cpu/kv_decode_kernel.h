#pragma once

#include <cstdint>
#include <cstring>

#include "engine/backend/cpu/kernels.h"
#include "engine/kv/quantizer.h"

namespace asymserve {

/// Stored blocks as floats in a thread's scratch, which stays in the first-level cache: keys
/// [D][64], values [64][D]. The same numbers as kv/codec.h, but kFitted values stay rotated and
/// kPlanes stay z'. Every instruction set gives the same bits.
template <typename V>
struct KvDecode {
  using F32 = typename V::F32;
  using I32 = typename V::I32;

  /// `count` fp16 numbers, a multiple of 16.
  static void Halves(const uint8_t* p, int32_t count, float* out) {
    for (int32_t i = 0; i < count; i += 16) {
      V::Store(out + i, V::LoadHalf(reinterpret_cast<const uint16_t*>(p) + i));
    }
  }

  static void Int8Keys(int32_t head_size, const uint8_t* block, float* out) {
    float scales[kKvPageTokens];
    Halves(block + int64_t{head_size} * kKvPageTokens, kKvPageTokens, scales);
    for (int32_t d = 0; d < head_size; d += 4) {
      for (int32_t t = 0; t < kKvPageTokens; ++t) {
        const uint8_t* codes = block + (int64_t{d} / 4 * kKvPageTokens + t) * 4;
        for (int32_t c = 0; c < 4; ++c) {
          out[(d + c) * kKvPageTokens + t] = scales[t] * static_cast<float>(codes[c] - 128);
        }
      }
    }
  }

  static void Int8Values(int32_t head_size, const uint8_t* block, float* out) {
    float scales[kKvPageTokens];
    Halves(block + int64_t{head_size} * kKvPageTokens, kKvPageTokens, scales);
    for (int32_t t = 0; t < kKvPageTokens; ++t) {
      const auto* codes = reinterpret_cast<const int8_t*>(block) + int64_t{t} / 4 * head_size * 4;
      for (int32_t d = 0; d < head_size; ++d) {
        out[int64_t{t} * head_size + d] = scales[t] * static_cast<float>(codes[d * 4 + t % 4]);
      }
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

  /// The pair of planes 2i, 2i + 1 of a block whose base holds `base_planes`.
  static const uint8_t* PlanePair(const KvBlock& block, int32_t base_planes, int32_t plane) {
    const bool in_base = plane < base_planes;
    return (in_base ? block.bytes : block.refinement) +
           int64_t{in_base ? plane : plane - base_planes} / 2 * kKvPageTokens;
  }

  static void PlaneKeys(const KvHead& head, int32_t head_size, const KvBlock& block, float* out) {
    const PlaneTables& tables = head.planes;
    const int32_t planes =
        block.refinement != nullptr ? head.item.fresh_planes : head.item.base_planes;
    std::memset(out, 0, sizeof(float) * static_cast<size_t>(head_size) * kKvPageTokens);
    for (int32_t p = 0; p < planes; ++p) {
      const uint8_t* codes = PlanePair(block, head.item.base_planes, p);
      float* rows = out + int64_t{4} * tables.subvector[p] * kKvPageTokens;
      F32 table[4];
      for (int32_t c = 0; c < 4; ++c) table[c] = V::Load(tables.by_channel + (p * 4 + c) * 16);
      for (int32_t t = 0; t < kKvPageTokens; t += 16) {
        const I32 low = V::template LoadNibbles<0>(codes + t);
        const I32 high = V::template LoadNibbles<4>(codes + t);
        const I32 entries = p % 2 == 0 ? low : high;
        for (int32_t c = 0; c < 4; ++c) {
          float* place = rows + c * kKvPageTokens + t;
          V::Store(place, V::Add(V::Load(place), V::Lookup(table[c], entries)));
        }
      }
    }
  }

  static void PlaneValues(const KvHead& head, int32_t head_size, const KvBlock& block, float* out) {
    const PlaneTables& tables = head.planes;
    const int32_t planes =
        block.refinement != nullptr ? head.item.fresh_planes : head.item.base_planes;
    std::memset(out, 0, sizeof(float) * static_cast<size_t>(head_size) * kKvPageTokens);
    for (int32_t p = 0; p < planes; ++p) {
      const uint8_t* codes = PlanePair(block, head.item.base_planes, p);
      float* column = out + int64_t{4} * tables.subvector[p];
      const float* table = tables.by_entry + int64_t{p} * 64;
      const int32_t shift = p % 2 * 4;
      for (int32_t t = 0; t < kKvPageTokens; ++t) {
        const float* entry = table + (codes[t] >> shift & 15) * 4;
        float* place = column + int64_t{t} * head_size;
        for (int32_t c = 0; c < 4; ++c) place[c] += entry[c];
      }
    }
  }

  /// Not for near kHalf blocks, which are read as they are.
  static void Block(const KvHead& head, KvTensor tensor, int32_t head_size, const KvBlock& block,
                    float* out) {
    const bool key = tensor == KvTensor::kKey;
    const KvCodec codec = block.sealed ? head.item.codec : head.near;
    switch (codec) {
      case KvCodec::kHalf:
        for (int32_t i = 0; i < head_size * kKvPageTokens; i += 16) {
          V::Store(out + i, V::LoadHalf(reinterpret_cast<const uint16_t*>(block.bytes) + i));
        }
        return;
      case KvCodec::kInt8:
        return key ? Int8Keys(head_size, block.bytes, out)
                   : Int8Values(head_size, block.bytes, out);
      case KvCodec::kMinMax:
      case KvCodec::kFitted:
        return Scalar(head.item, tensor, head_size, block.bytes, out);
      case KvCodec::kPlanes:
        return key ? PlaneKeys(head, head_size, block, out)
                   : PlaneValues(head, head_size, block, out);
    }
  }
};

}  // namespace asymserve
