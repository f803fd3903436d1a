#pragma once

#include <cstdint>

namespace asymserve::cuda {

/// Blocks that a grid has in y at most. Launches that need more go on in a loop.
inline constexpr int64_t kMostBlocksInY = 65535;

/// Thread blocks that fill half of a device of 132 multiprocessors: from as many on more than 16
/// rows of x are multiplied by the kernel for many rows (mma_products.cuh). The result is the same.
inline constexpr int64_t kEnoughBlocks = 64;

}  // namespace asymserve::cuda
