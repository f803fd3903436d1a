#include "engine/quality/log_axis.h"

#include <algorithm>
#include <cmath>

namespace asymserve {
namespace {

constexpr double kSlack = 1e-9;  // relative, of rounding

/// 1, 2, 5, 10, 20 ... by number; 0 is 1.
double Step(int index) {
  constexpr double kSteps[] = {1, 2, 5};
  const int decade = index >= 0 ? index / 3 : (index - 2) / 3;
  return kSteps[index - 3 * decade] * std::pow(10.0, decade);
}

/// The largest step that is not above `value` > 0.
int StepBelow(double value) {
  int index = 3 * static_cast<int>(std::floor(std::log10(value))) - 1;
  while (Step(index + 1) <= value * (1 + kSlack)) ++index;
  return index;
}

}  // namespace

double LogAxis::At(double value) const {
  return begin + (end - begin) * std::log(value / low) / std::log(high / low);
}

std::vector<double> LogAxis::Ticks() const {
  std::vector<double> ticks;
  for (int index = StepBelow(low); Step(index) <= high * (1 + kSlack); ++index) {
    if (Step(index) >= low * (1 - kSlack)) ticks.push_back(Step(index));
  }
  return ticks;
}

LogAxis AxisAround(const std::vector<double>& values, double begin, double end) {
  double least = 0, largest = 0;
  for (const double value : values) {
    if (!(value > 0)) continue;
    least = least > 0 ? std::min(least, value) : value;
    largest = std::max(largest, value);
  }
  if (!(least > 0)) return {0.1, 1, begin, end};
  const int below = StepBelow(least);
  int above = StepBelow(largest);
  if (Step(above) < largest * (1 - kSlack) || above == below) ++above;
  return {Step(below), Step(above), begin, end};
}

}  // namespace asymserve
