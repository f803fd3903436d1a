#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

namespace asymserve {

/// The i with offset[i] <= index < offset[i + 1], for ascending offsets from 0.
inline int32_t FindRange(std::span<const int32_t> offset, int64_t index) {
  const auto after = std::upper_bound(offset.begin(), offset.end(), index);
  return static_cast<int32_t>(after - offset.begin()) - 1;
}

}  // namespace asymserve
