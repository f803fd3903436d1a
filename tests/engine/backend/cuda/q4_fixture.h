#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/backend/cuda/matrix_view.h"
#include "engine/backend/cuda/q4_layout.h"
#include "engine/backend/cuda/q4_pack.h"
#include "tests/engine/backend/backend_fixture.h"

namespace asymserve::testing {

inline constexpr DType kQ4Types[] = {DType::kQ4_0, DType::kQ4_1, DType::kQ4K};

/// Rows of a file in tiles, as the device has them.
inline std::vector<std::byte> PackQ4(const WeightSource& source) {
  const int64_t tile_bytes = cuda::Q4Layout(source.dtype, source.cols).tile_bytes;
  // Full of what a weight of the last tile would be if its place were left as it was.
  std::vector<std::byte> bytes(static_cast<size_t>(cuda::Q4Tiles(source.rows) * tile_bytes),
                               std::byte{0x7B});
  std::vector<const std::byte*> rows;
  for (int64_t row = 0; row < source.rows; ++row) {
    rows.push_back(source.data + row * RowBytes(source.dtype, source.cols));
    if (row + 1 < source.rows && (row + 1) % cuda::kQ4TileRows != 0) continue;
    cuda::PackQ4Tile(source.dtype, rows, source.cols,
                     bytes.data() + row / cuda::kQ4TileRows * tile_bytes);
    rows.clear();
  }
  return bytes;
}

struct Q4Weight {
  explicit Q4Weight(const WeightSource& source)
      : bytes(PackQ4(source)),
        view{bytes.data(), source.dtype, static_cast<int32_t>(source.rows),
             static_cast<int32_t>(source.cols)} {}

  std::vector<std::byte> bytes;
  cuda::MatrixView view;
};

}  // namespace asymserve::testing
