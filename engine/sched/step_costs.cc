#include "engine/sched/step_costs.h"

#include <algorithm>
#include <cmath>

namespace asymserve {

void StepCosts::Observe(const StepSample& step) {
  if (step.shadow) return;
  constexpr double kKeep = 1.0 - 1.0 / kMemory;
  const double rows = step.decode_rows;
  const auto us = static_cast<double>(std::max<TimeUs>(step.duration, 0));
  if (step.prefill_tokens > 0) {
    if (step.decode_rows > 0 && decode_.steps == 0) return;  // not to be told apart
    const double rest = step.decode_rows > 0 ? DecodeUs(step.decode_rows) : 0;
    prefill_tokens_ = prefill_tokens_ * kKeep + step.prefill_tokens;
    prefill_us_ = prefill_us_ * kKeep + std::max(0.0, us - rest);
    prefill_steps_ = std::min(prefill_steps_ + 1, kMinPrefillSteps);
  } else if (step.decode_rows > 0) {
    decode_.steps = decode_.steps * kKeep + 1;
    decode_.rows = decode_.rows * kKeep + rows;
    decode_.us = decode_.us * kKeep + us;
    decode_.rows_rows = decode_.rows_rows * kKeep + rows * rows;
    decode_.rows_us = decode_.rows_us * kKeep + rows * us;
  }
}

std::optional<double> StepCosts::PrefillUs(double tokens) const {
  if (prefill_steps_ < kMinPrefillSteps) return std::nullopt;
  return tokens * prefill_us_ / prefill_tokens_;
}

double StepCosts::DecodeUs(int32_t rows) const {
  if (decode_.steps == 0) return 0;
  const double mean_rows = decode_.rows / decode_.steps;
  const double mean_us = decode_.us / decode_.steps;
  const double variance = decode_.rows_rows / decode_.steps - mean_rows * mean_rows;
  double slope = 0;
  if (variance > 1e-3 * mean_rows * mean_rows) {
    const double covariance = decode_.rows_us / decode_.steps - mean_rows * mean_us;
    slope = std::clamp(covariance / variance, 0.0, mean_us / mean_rows);
  }
  return mean_us + slope * (rows - mean_rows);
}

void DrainRate::Observe(TimeUs duration, int32_t left) {
  if (duration <= 0) return;
  const double keep = std::exp(-static_cast<double>(duration) / kMemoryUs);
  us_ = us_ * keep + static_cast<double>(duration);
  left_ = left_ * keep + left;
}

std::optional<double> DrainRate::PerSecond() const {
  if (us_ < kMinUs || left_ <= 0) return std::nullopt;
  // Between departures that are far apart the newest one counts whole, or it would be forgotten.
  return std::max(left_, 1.0) * 1e6 / us_;
}

}  // namespace asymserve
