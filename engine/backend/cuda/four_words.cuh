#pragma once

#include <cstdint>

namespace asymserve {

/// 16 bytes, which a lane reads at once.
struct alignas(16) FourWords {
  uint32_t of[4];
};
struct alignas(16) FourFloats {
  float of[4];
};

}  // namespace asymserve
