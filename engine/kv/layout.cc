#include "engine/kv/layout.h"

#include "engine/base/check.h"
#include "engine/kv/page_tier.h"

namespace asymserve {

KvLayout::KvLayout(const KvShape& shape, const KvScheme& scheme) : shape_(shape), scheme_(scheme) {
  const KvItem near = {.codec = scheme.near};
  int64_t sealed_bytes[2] = {};  // by KvTensor
  for (std::vector<int64_t>& offsets : offsets_) {
    offsets.resize(size_t{2} * static_cast<size_t>(shape.layers) *
                   static_cast<size_t>(shape.kv_heads));
  }
  for (int32_t layer = 0; layer < shape.layers; ++layer) {
    for (int32_t head = 0; head < shape.kv_heads; ++head) {
      for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
        const auto add = [&](KvRecord record, int64_t bytes) {
          const auto kind = static_cast<size_t>(record);
          offsets_[kind][Index(layer, tensor, head)] = bytes_[kind];
          bytes_[kind] += PadKvBlock(bytes);
          tensor_bytes_[kind][static_cast<size_t>(tensor)] += PadKvBlock(bytes);
        };
        add(KvRecord::kNear, KvBlockBytes(near, tensor, shape.head_size, 0));
        if (!scheme.seals()) continue;
        const KvItem& item = scheme.item(shape, layer, tensor, head);
        const int64_t base = KvBlockBytes(item, tensor, shape.head_size, item.base_planes);
        add(KvRecord::kBase, base);
        sealed_bytes[static_cast<size_t>(tensor)] += base;
        const int32_t finer =
            item.codec == KvCodec::kPlanes ? item.fresh_planes - item.base_planes : 0;
        add(KvRecord::kRefinement,
            finer > 0 ? KvBlockBytes(item, tensor, shape.head_size, finer) : 0);
      }
    }
  }
  if (scheme.fresh_pages == 0) {
    constexpr auto kRefinement = static_cast<size_t>(KvRecord::kRefinement);
    bytes_[kRefinement] = tensor_bytes_[kRefinement][0] = tensor_bytes_[kRefinement][1] = 0;
  }
  exact_block_bytes_ = KvBlockBytes({.codec = KvCodec::kHalf}, KvTensor::kKey, shape.head_size, 0);
  ASYMSERVE_CHECK(scheme.near == KvCodec::kHalf ||
                  ExactOffset(shape.layers, 0) <= record_bytes(KvRecord::kNear));
  const double elements =
      1.0 * shape.layers * shape.kv_heads * shape.head_size * scheme.page_tokens;
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const auto t = static_cast<size_t>(tensor);
    const int64_t whole = scheme.seals() ? sealed_bytes[t] : tensor_bytes(KvRecord::kNear, tensor);
    sealed_bits_[t] = 8.0 * static_cast<double>(whole) / elements;
  }
}

double KvLayout::EffectiveBits(int64_t tokens) const {
  const auto pages = static_cast<int32_t>((tokens + scheme_.page_tokens - 1) / scheme_.page_tokens);
  const auto complete = static_cast<int32_t>((tokens - 1) / scheme_.page_tokens);
  int64_t bytes = 0;
  for (int32_t page = 0; page < pages; ++page) {
    const KvTier key = TierOf(scheme_, KvTensor::kKey, page, complete);
    const KvTier value = TierOf(scheme_, KvTensor::kValue, page, complete);
    if (key == KvTier::kNear || value == KvTier::kNear) bytes += record_bytes(KvRecord::kNear);
    if (key != KvTier::kNear || value != KvTier::kNear) bytes += record_bytes(KvRecord::kBase);
    if (key == KvTier::kFresh || value == KvTier::kFresh) {
      bytes += record_bytes(KvRecord::kRefinement);
    }
  }
  const double elements = 2.0 * shape_.layers * shape_.kv_heads * shape_.head_size;
  return 8.0 * static_cast<double>(bytes) / elements / static_cast<double>(tokens);
}

}  // namespace asymserve
