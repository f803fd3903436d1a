#pragma once

#include <cstdint>
#include <optional>

#include "engine/sched/sequence.h"

// What steps and the queue cost, measured: pure functions of what the engine reports. Newer reports
// count more; nothing is known before there are some.

namespace asymserve {

/// One step as it ran.
struct StepSample {
  int32_t prefill_tokens = 0;
  int32_t decode_rows = 0;  // tokens of decode items
  bool shadow = false;      // a shadow had a share, too: what it took says nothing of the rest
  TimeUs duration = 0;
};

/// The time of a step as a line: a base, a part for each decode row (both from steps without
/// prefill, by least squares) and a part for each prefill token (what the rest of the step does not
/// explain). Each step weighs 1 - 1 / kMemory of the one after it.
class StepCosts {
 public:
  static constexpr int32_t kMemory = 64;
  static constexpr int32_t kMinPrefillSteps = 4;

  void Observe(const StepSample& step);

  /// Microseconds of prefill alone; absent until kMinPrefillSteps steps had some.
  std::optional<double> PrefillUs(double tokens) const;
  /// Microseconds of a step of `rows` decode rows; 0 until there was one.
  double DecodeUs(int32_t rows) const;

 private:
  struct Sums {
    double steps = 0, rows = 0, us = 0, rows_rows = 0, rows_us = 0;
  };
  Sums decode_;
  double prefill_tokens_ = 0, prefill_us_ = 0;
  int32_t prefill_steps_ = 0;
};

/// How fast sequences leave a queue that is not empty, over the last kMemoryUs or so.
class DrainRate {
 public:
  static constexpr double kMemoryUs = 10e6;
  /// Shorter than this is not measured.
  static constexpr double kMinUs = 100e3;

  /// `left` sequences left the queue in `duration`, at whose start some waited.
  void Observe(TimeUs duration, int32_t left);
  /// Sequences a second, at least 1 in kMemoryUs once any left; absent before anything was
  /// measured.
  std::optional<double> PerSecond() const;

 private:
  double us_ = 0, left_ = 0;
};

}  // namespace asymserve
