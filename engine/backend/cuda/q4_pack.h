#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/base/tensor.h"

// From the 4-bit blocks of a GGUF file to the tiles of q4_layout.h, on the host.

namespace asymserve::cuda {

/// Whether every scale and minimum of a row, as the file has it, is finite.
bool HasFiniteScales(DType type, const std::byte* row, int64_t cols);

/// Writes a tile. `rows`: up to 32 rows as the file has them, unaligned; missing ones become zeros.
/// `type` is one of IsQ4, `cols` a multiple of its block.
void PackQ4Tile(DType type, std::span<const std::byte* const> rows, int64_t cols, std::byte* tile);

}  // namespace asymserve::cuda
