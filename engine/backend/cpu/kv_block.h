#pragma once

#include <cstdint>

#include "engine/kv/codec.h"
#include "engine/kv/page_tier.h"

namespace asymserve {

/// The learned code of a head as kernels read it.
struct PlaneTables {
  int32_t planes = 0;
  const uint8_t* subvector = nullptr;  // [planes]
  const float* by_channel = nullptr;   // [planes][4][16]
  const float* by_entry = nullptr;     // [planes][16][4]
  /// Keys: query [D][Dp], q' = q times it, so that q . x' = q' . z' + q . mean. Values: output
  /// [D][Dp], x' = z' times it + mean. Dp: D padded to a multiple of 16.
  const float* transform = nullptr;
  const float* mean = nullptr;  // [Dp]
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

/// The bytes of a tensor of one page: a near block, or a sealed one.
struct KvBlock {
  const uint8_t* bytes = nullptr;       // near or base
  const uint8_t* refinement = nullptr;  // fresh kPlanes only
  bool sealed = false;
};

struct KvPageBlocks {
  KvBlock key, value;
};

}  // namespace asymserve
