#include "engine/backend/cuda/attention_choice.h"

#include <algorithm>

#include "engine/backend/attention_plan.h"
#include "engine/kv/block_format.h"

namespace asymserve::cuda {

bool CanUsePackedAttentionMma(const KvScheme& scheme, const KvShape& shape) {
  if (shape.head_size != 64 && shape.head_size != 128) return false;
  const int32_t frame = scheme.frame_tokens;
  const bool frame_fits = frame > 0 && frame % (kSplitPages * kKvPageTokens) == 0;
  return std::all_of(scheme.items.begin(), scheme.items.end(), [&](const KvItem& item) {
    return item.codec == KvCodec::kHalf || item.codec == KvCodec::kInt8 ||
           (item.codec == KvCodec::kPlanes && frame_fits);
  });
}

}  // namespace asymserve::cuda
