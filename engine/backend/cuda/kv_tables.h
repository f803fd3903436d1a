#pragma once

#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/backend/cuda/kv_view.h"
#include "engine/kv/layout.h"
#include "engine/kv/record_pool.h"

namespace asymserve::cuda {

/// The offsets of all blocks of a model's records, [3][L][2][G] by KvRecord, to be uploaded.
std::vector<int64_t> BlockOffsets(const KvShape& shape, const KvLayout& layout);

/// The tables of PlaneCodeView that are made of a code and its first `planes` planes, 254 at most.
struct PlaneIndex {
  std::vector<uint16_t> entries;
  std::vector<uint8_t> by_subvector, starts;
  std::vector<float> decode_columns;
};
PlaneIndex IndexPlanes(const PlaneCode& code, int32_t planes);

/// The view of an arena. `arena`, `offsets` and, of a scheme that seals, `items` are device memory:
/// the arena, BlockOffsets, and the scheme's items. The caller sets `codes`.
KvView MakeKvView(const KvSetup& setup, const KvLayout& layout, const ArenaCut& cut, uint8_t* arena,
                  const int64_t* offsets, const KvItem* items);

}  // namespace asymserve::cuda
