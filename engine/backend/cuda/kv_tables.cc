#include "engine/backend/cuda/kv_tables.h"

#include "engine/base/float16.h"

namespace asymserve::cuda {
namespace {

constexpr KvRecord kRecords[] = {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement};

}  // namespace

std::vector<int64_t> BlockOffsets(const KvShape& shape, const KvLayout& layout) {
  std::vector<int64_t> offsets;
  for (const KvRecord record : kRecords) {
    for (int32_t layer = 0; layer < shape.layers; ++layer) {
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        for (int32_t head = 0; head < shape.kv_heads; ++head) {
          offsets.push_back(layout.Offset(record, layer, tensor, head));
        }
      }
    }
  }
  return offsets;
}

PlaneIndex IndexPlanes(const PlaneCode& code, int32_t planes) {
  constexpr int32_t kChannels = 4;
  constexpr int32_t kEntries = 16;
  PlaneIndex index;
  for (int32_t p = 0; p < planes; ++p) {
    for (int32_t entry = 0; entry < kEntries; ++entry) {
      for (int32_t c = 0; c < kChannels; ++c) {
        index.entries.push_back(FloatToHalf(code.codebook(p)[c * kEntries + entry]));
      }
    }
  }
  for (int32_t subvector = 0; subvector < code.head_size / kChannels; ++subvector) {
    index.starts.push_back(static_cast<uint8_t>(index.by_subvector.size()));
    for (int32_t p = 0; p < planes; ++p) {
      if (code.subvector[static_cast<size_t>(p)] != subvector) continue;
      index.by_subvector.push_back(static_cast<uint8_t>(p));
    }
  }
  index.starts.push_back(static_cast<uint8_t>(index.by_subvector.size()));
  const auto size = static_cast<size_t>(code.head_size);
  index.decode_columns.resize(size * size);
  for (size_t row = 0; row < size; ++row) {
    for (size_t column = 0; column < size; ++column) {
      index.decode_columns[column * size + row] = code.decode[row * size + column];
    }
  }
  return index;
}

KvView MakeKvView(const KvSetup& setup, const KvLayout& layout, const ArenaCut& cut, uint8_t* arena,
                  const int64_t* offsets, const KvItem* items) {
  const int64_t blocks = int64_t{2} * setup.shape.layers * setup.shape.kv_heads;
  KvView view;
  view.arena = arena;
  view.slab_bytes = cut.slab_bytes;
  for (const KvRecord record : kRecords) {
    const auto k = static_cast<size_t>(record);
    view.record_bytes[k] = layout.record_bytes(record);
    view.per_slab[k] = cut.per_slab[k];
    view.offsets[k] = offsets + static_cast<int64_t>(k) * blocks;
  }
  view.items = setup.scheme.seals() ? items : nullptr;
  view.layers = setup.shape.layers;
  view.kv_heads = setup.shape.kv_heads;
  view.head_size = setup.shape.head_size;
  view.near = setup.scheme.near;
  view.frame_tokens = setup.scheme.frame_tokens;
  view.rope = static_cast<const float*>(setup.rope.data);
  view.interleaved = setup.rope_style == RopeStyle::kInterleaved;
  return view;
}

}  // namespace asymserve::cuda
