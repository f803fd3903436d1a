#pragma once

#include <cstdint>
#include <vector>

#include "engine/kv/scheme.h"

namespace asymserve {

/// What is known of one item when bits are given out.
struct ItemLoss {
  /// The end-to-end loss that disappears when the item is stored exactly, measured with
  /// `at_planes` planes; >= 0.
  double loss = 0;
  int32_t at_planes = 16;
  /// [planes + 1], as TrainedPlanes::distortion.
  std::vector<double> distortion;
};

/// Gives every item planes, or int8, by loss per byte until `bits` per element are spent: each step
/// takes the item and the size whose loss falls most per byte. The loss of an item with p planes
/// is taken as in proportion to its distortion. `least_planes` and all results are even. Fresh
/// pages have no more planes than aged ones.
std::vector<KvItem> AllocatePlanes(const std::vector<ItemLoss>& losses, int32_t head_size,
                                   double bits, int32_t least_planes);

/// Gives the fresh pages of the items with planes more of them in the same way, until those items
/// have `bits` per element on average. `losses` are those of fresh pages.
void AllocateFreshPlanes(const std::vector<ItemLoss>& losses, int32_t head_size, double bits,
                         std::vector<KvItem>& items);

}  // namespace asymserve
