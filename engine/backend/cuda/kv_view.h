#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/kv/block_format.h"
#include "engine/kv/page.h"

namespace asymserve::cuda {

/// The learned code of one (layer, tensor, KV head), as kv/plane_code.h has it, in device memory.
struct PlaneCodeView {
  int32_t planes = 0;                  // 0: the item is not kPlanes
  const uint8_t* subvector = nullptr;  // [planes]
  const float* codebooks = nullptr;    // [planes][4][16]
  // The same once more for kernels that decode many tokens (IndexPlanes): entries of codebooks in
  // fp16, [planes][16][4], and which planes a subvector has: by_subvector[starts[s]] up to before
  // by_subvector[starts[s + 1]], in order, s in [0, D/4).
  const uint16_t* entries = nullptr;
  const uint8_t* by_subvector = nullptr;  // [planes]
  const uint8_t* starts = nullptr;        // [D/4 + 1]
  const float* encode = nullptr;          // [D][D]
  const float* decode = nullptr;          // [D][D]
  const float* decode_columns = nullptr;  // [D][D]: decode transposed
  const float* mean = nullptr;            // [D]
};

/// The arena as kernels see it: where the blocks of a page are, and how they are stored. A value;
/// everything it points to is device memory. kv_tables.h fills it.
struct KvView {
  uint8_t* arena = nullptr;
  int64_t slab_bytes = 0;
  int64_t record_bytes[3] = {};          // by KvRecord
  int32_t per_slab[3] = {};              // records of a slab
  const int64_t* offsets[3] = {};        // [L][2][G] of a block in its record
  const KvItem* items = nullptr;         // [L][2][G]; null: pages are never sealed
  const PlaneCodeView* codes = nullptr;  // [L][2][G]; null: no item is kPlanes
  int32_t layers = 0, kv_heads = 0, head_size = 0;
  KvCodec near = KvCodec::kHalf;
  int32_t frame_tokens = 0;
  const float* rope = nullptr;  // [positions][D], for the frames of kPlanes keys
  bool interleaved = false;

  __device__ int32_t ItemIndex(int32_t layer, KvTensor tensor, int32_t head) const {
    return (2 * layer + static_cast<int32_t>(tensor)) * kv_heads + head;
  }
  __device__ uint8_t* Record(KvRecord kind, PageId id) const {
    const auto k = static_cast<int32_t>(kind);
    const int32_t index = Index(id);
    return arena + index / per_slab[k] * slab_bytes + index % per_slab[k] * record_bytes[k];
  }
  __device__ uint8_t* Block(KvRecord kind, PageId id, int32_t item) const {
    return Record(kind, id) + offsets[static_cast<int32_t>(kind)][item];
  }
  __device__ KvCodec NearCodec(const KvPage& page) const {
    return page.exact ? KvCodec::kHalf : near;
  }
  /// A block of a page that is not sealed. Exact pages where near is kInt8 take two records
  /// (KvRecord).
  __device__ uint8_t* NearBlock(const KvPage& page, int32_t layer, KvTensor tensor,
                                int32_t head) const {
    if (NearCodec(page) == near) {
      return Block(KvRecord::kNear, page.near, ItemIndex(layer, tensor, head));
    }
    const PageId record = tensor == KvTensor::kKey ? page.near : page.exact_values;
    const int64_t block_bytes = int64_t{2} * head_size * kKvPageTokens;
    return Record(KvRecord::kNear, record) + (int64_t{layer} * kv_heads + head) * block_bytes;
  }
};

}  // namespace asymserve::cuda
