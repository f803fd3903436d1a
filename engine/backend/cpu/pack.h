#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/base/tensor.h"

// Between rows of a model file and panels (packed_format.h). No arithmetic on values: codes and
// scales are moved.

namespace asymserve {

/// Bytes of a panel of 16 rows of `cols`, a multiple of 64.
int64_t PanelBytes(DType dtype, int64_t cols);

/// Packs 16 rows, given by their first bytes (any alignment). Null is a padding row: its weights
/// are zero.
void PackPanel(DType dtype, const std::byte* const (&rows)[16], int64_t cols, std::byte* panel);

/// The values of column `column` of a panel, as the file's format defines them.
void UnpackColumn(DType dtype, const std::byte* panel, int column, int64_t cols, float* out);

}  // namespace asymserve
