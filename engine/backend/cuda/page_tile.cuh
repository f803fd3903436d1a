#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/kv_view.h"
#include "engine/backend/cuda/near_tile.cuh"
#include "engine/backend/cuda/shared_array.cuh"

// Pages decoded into shared memory, in the space that their codec stores: kPlanes before the
// decoding matrix, values of kFitted before the Hadamard matrix.

namespace asymserve::cuda {

/// A tensor of a page for one (layer, KV head).
struct PageBlock {
  const uint8_t* bytes = nullptr;       // near or base
  const uint8_t* refinement = nullptr;  // fresh kPlanes only
  KvItem item = {};                     // the codec of `bytes`
};

__device__ __forceinline__ PageBlock BlockOf(const KvView& kv, const KvPage& page, int32_t layer,
                                             KvTensor tensor, int32_t head) {
  const KvTier tier = tensor == KvTensor::kKey ? page.key_tier : page.value_tier;
  if (tier == KvTier::kNear) {
    KvItem near;
    near.codec = kv.NearCodec(page);
    return {kv.NearBlock(page, layer, tensor, head), nullptr, near};
  }
  const int32_t index = kv.ItemIndex(layer, tensor, head);
  const KvItem item = kv.items[index];
  const bool fresh = tier == KvTier::kFresh && item.codec == KvCodec::kPlanes &&
                     item.fresh_planes > item.base_planes;
  return {kv.Block(KvRecord::kBase, page.base, index),
          fresh ? kv.Block(KvRecord::kRefinement, page.refinement, index) : nullptr, item};
}

/// An element of a kMinMax or kFitted block.
__device__ __forceinline__ float ScalarValue(const PageBlock& block, const ScalarBlock& layout,
                                             KvTensor tensor, int32_t head_size, int32_t token,
                                             int32_t channel) {
  const bool key = tensor == KvTensor::kKey;
  const int32_t row = key ? channel : token;
  const int32_t element = key ? token : channel;
  const int32_t elements = key ? kKvPageTokens : head_size;
  const bool fitted = block.item.codec == KvCodec::kFitted;
  const int32_t group_size = fitted ? kFittedGroup : kMinMaxGroup;
  const int32_t group = row * GroupsOf(elements, group_size) + element / group_size;
  Levels levels = {};
  if (fitted) {
    const auto& header = *reinterpret_cast<const FittedHeader*>(block.bytes + layout.header);
    levels = FittedLevels(header, block.bytes[layout.scales + group],
                          block.bytes[layout.means + group], block.item.bits);
  } else {
    const auto* pair = reinterpret_cast<const uint16_t*>(block.bytes + layout.scales) + 2 * group;
    levels = {HalfToFloat(pair[0]), HalfToFloat(pair[1])};
  }
  const uint8_t code =
      LoadCode(block.bytes + row * layout.row_bytes, layout.row_bytes, block.item.bits, element);
  return levels.zero + levels.scale * static_cast<float>(code);
}

/// Adds up the planes of a subvector of a token.
__device__ __forceinline__ void PlaneValues(const PageBlock& block, const PlaneCodeView& code,
                                            int32_t token, int32_t subvector, float (&z)[4]) {
  const int32_t base_planes = block.item.base_planes;
  const int32_t planes = block.refinement != nullptr ? block.item.fresh_planes : base_planes;
  for (int32_t c = 0; c < 4; ++c) z[c] = 0.0f;
  for (int32_t p = 0; p < planes; ++p) {
    if (code.subvector[p] != subvector) continue;
    const bool in_base = p < base_planes;
    const uint8_t* bytes = in_base ? block.bytes : block.refinement;
    const int32_t pair = (in_base ? p : p - base_planes) / 2;
    const int32_t entry = bytes[pair * kKvPageTokens + token] >> (p % 2 * 4) & 15;
    for (int32_t c = 0; c < 4; ++c) z[c] += code.codebooks[p * 64 + c * 16 + entry];
  }
}

/// tile [tokens][D] = the first tokens of a page. All threads of the block; barriers are the
/// caller's.
__device__ __forceinline__ void DecodeTile(const KvView& kv, const PageBlock& block,
                                           const PlaneCodeView* code, KvTensor tensor,
                                           int32_t tokens, SharedArray<float> tile) {
  const auto thread = static_cast<int32_t>(threadIdx.x);
  const auto threads = static_cast<int32_t>(blockDim.x);
  const int32_t size = kv.head_size;
  if (block.item.codec == KvCodec::kPlanes) {
    for (int32_t i = thread; i < tokens * size / 4; i += threads) {
      const int32_t token = i % tokens;
      const int32_t subvector = i / tokens;
      float z[4];
      PlaneValues(block, *code, token, subvector, z);
      for (int32_t c = 0; c < 4; ++c) tile[token * size + 4 * subvector + c] = z[c];
    }
    return;
  }
  const bool scalar = block.item.codec == KvCodec::kMinMax || block.item.codec == KvCodec::kFitted;
  const ScalarBlock layout = scalar ? ScalarBlockOf(block.item, tensor, size) : ScalarBlock{};
  for (int32_t i = thread; i < tokens * size; i += threads) {
    const int32_t token = i / size;
    tile[i] = scalar ? ScalarValue(block, layout, tensor, size, token, i % size)
                     : NearValue(block.item.codec, tensor, size, block.bytes, token, i % size);
  }
}

}  // namespace asymserve::cuda
