#pragma once

#include <cstdint>
#include <vector>

#include "bench/sched/machine.h"
#include "engine/kv/layout.h"
#include "engine/sched/scheduler.h"

namespace asymserve {

/// What steps take on a machine with a scheme.
class StepCost {
 public:
  StepCost(const Machine& machine, const SchemeSpeed& speed, const KvScheme& scheme);

  /// Microseconds, at least 1.
  TimeUs Of(const StepPlan& plan) const;

  /// Bytes that attention of one row reads when `tokens` >= 1 tokens are stored, the newest its
  /// own, and `complete` pages count as complete.
  double ReadBytes(int32_t tokens, int32_t complete) const;

 private:
  double CompleteBytes(int32_t complete) const;

  const Machine machine_;
  const SchemeSpeed speed_;
  const KvScheme scheme_;
  double near_bytes_ = 0;
  std::vector<double> complete_bytes_;  // by number of complete pages, up to the context
};

}  // namespace asymserve
