#pragma once

#include <vector>

namespace asymserve {

/// A logarithmic axis: values in [low, high], 0 < low < high, onto pixels from `begin` to `end`
/// (which may lie before it: y grows downwards in pictures).
struct LogAxis {
  double low = 1;
  double high = 10;
  double begin = 0;
  double end = 1;

  double At(double value) const;
  /// The values 1, 2 and 5 times a power of ten in the range.
  std::vector<double> Ticks() const;
};

/// The range from the 1, 2 or 5 times a power of ten below the least of the positive values to the
/// one above the largest; 0.1 to 1 where there is none.
LogAxis AxisAround(const std::vector<double>& values, double begin, double end);

}  // namespace asymserve
