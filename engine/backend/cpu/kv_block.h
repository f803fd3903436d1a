#pragma once

#include <cstdint>

#include "engine/kv/codec.h"
#include "engine/kv/page_tier.h"

namespace asymserve {

/// The learned code of a head as kernels read it. Dp: D padded to a multiple of 16.
struct PlaneTables {
  const uint8_t* subvector = nullptr;  // [planes]
  /// Keys: query [D][Dp], q' = q times it, so that q . x' = q' . z' + q . mean. Values: output
  /// [D][Dp], x' = z' times it + mean.
  const float* transform = nullptr;
  const float* mean = nullptr;  // [Dp]

  // As kv/plane_code.h has them, for sealing; keys are scored by the codebooks, too.
  const float* encode = nullptr;     // [D][D]
  const float* codebooks = nullptr;  // [planes][4][16], channel, then entry

  // Values, as int8: channel 4s + i of z' is scale[4s + i] times the sum over planes p of s of
  // entries[p][i][c_p], which fits int8 for every choice of codes.
  const int8_t* entries = nullptr;        // [planes][4][16]
  const float* scale = nullptr;           // [Dp]
  const uint8_t* by_subvector = nullptr;  // [planes] plane numbers by subvector, then ascending
  const uint8_t* first_of = nullptr;      // [D/4 + 1] where a subvector's planes begin in it
};

/// How a tensor of one (layer, KV head) is stored.
struct KvHead {
  KvCodec near = KvCodec::kHalf;
  KvItem item;  // once sealed
  PlaneTables planes;

  /// Whether sealed values are summed in a space of their own and transformed at the end.
  bool rotates_values() const {
    return item.codec == KvCodec::kFitted || item.codec == KvCodec::kPlanes;
  }
};

/// The bytes of a tensor of one page.
struct KvBlock {
  const uint8_t* bytes = nullptr;       // near or base
  const uint8_t* refinement = nullptr;  // fresh kPlanes only
  KvCodec codec = KvCodec::kHalf;       // of `bytes`
  bool sealed = false;
};

struct KvPageBlocks {
  KvBlock key, value;
};

}  // namespace asymserve
