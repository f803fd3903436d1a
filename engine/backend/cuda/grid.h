#pragma once

#include <cstdint>

namespace asymserve::cuda {

/// Blocks that a grid has in y at most. Launches that need more go on in a loop.
inline constexpr int64_t kMostBlocksInY = 65535;

}  // namespace asymserve::cuda
