#pragma once

#include "engine/kv/scheme.h"

namespace asymserve::cuda {

/// Whether PackedAttentionMma reads pages of that scheme and shape: heads of 64 or 128 channels,
/// items that are kPlanes, kHalf or kInt8 (those of a profile's tiers; exact; int8), frames that
/// are multiples of a split. Other schemes are PagedAttention's.
bool CanUsePackedAttentionMma(const KvScheme& scheme, const KvShape& shape);

}  // namespace asymserve::cuda
