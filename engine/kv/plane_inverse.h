#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

namespace asymserve {

/// PlaneCode::decode from PlaneCode::encode [n][n]: the inverse, computed in double by Gauss-Jordan
/// elimination with row pivots in a fixed order of operations, so that trainer and loader get the
/// same bits. InvalidArgument when the matrix is singular or its inverse leaves float's range.
absl::StatusOr<std::vector<float>> InverseOf(std::span<const float> matrix, int32_t n);

}  // namespace asymserve
