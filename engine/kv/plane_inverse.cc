#include "engine/kv/plane_inverse.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"

namespace asymserve {
namespace {

// Pivots below this share of the largest element are rounding noise.
constexpr double kLeastPivot = 1e-11;

/// In place; `swapped` gets the row that was exchanged with row k at step k.
bool Invert(std::vector<double>& a, size_t n, std::vector<size_t>& swapped) {
  double largest = 0;
  for (const double value : a) largest = std::max(largest, std::fabs(value));
  for (size_t k = 0; k < n; ++k) {
    size_t best = k;
    for (size_t i = k + 1; i < n; ++i) {
      if (std::fabs(a[i * n + k]) > std::fabs(a[best * n + k])) best = i;
    }
    swapped[k] = best;
    if (best != k) std::swap_ranges(&a[k * n], &a[k * n] + n, &a[best * n]);
    double* pivot_row = &a[k * n];
    if (!(std::fabs(pivot_row[k]) > kLeastPivot * largest)) return false;
    const double reciprocal = 1.0 / pivot_row[k];
    pivot_row[k] = 1.0;
    for (size_t j = 0; j < n; ++j) pivot_row[j] *= reciprocal;
    for (size_t i = 0; i < n; ++i) {
      if (i == k) continue;
      double* row = &a[i * n];
      const double factor = row[k];
      row[k] = 0.0;
      for (size_t j = 0; j < n; ++j) row[j] -= factor * pivot_row[j];
    }
  }
  return true;
}

}  // namespace

absl::StatusOr<std::vector<float>> InverseOf(std::span<const float> matrix, int32_t n) {
  const auto size = static_cast<size_t>(n);
  ASYMSERVE_CHECK(matrix.size() == size * size);
  std::vector<double> a(matrix.begin(), matrix.end());
  std::vector<size_t> swapped(size);
  if (!Invert(a, size, swapped)) return absl::InvalidArgumentError("the matrix is singular");
  for (size_t k = size; k-- > 0;) {
    if (swapped[k] == k) continue;
    for (size_t i = 0; i < size; ++i) std::swap(a[i * size + k], a[i * size + swapped[k]]);
  }
  std::vector<float> inverse(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i]) <= static_cast<double>(std::numeric_limits<float>::max()))) {
      return absl::InvalidArgumentError("the inverse of the matrix leaves float's range");
    }
    inverse[i] = static_cast<float>(a[i]);
  }
  return inverse;
}

}  // namespace asymserve
