#pragma once

#include <string>

#include "bench/sched/sweep.h"

namespace asymserve {

/// A picture (SVG): goodput over offered load, and the use of the arena over time under the first
/// load at which some scheme's goodput is below 90 % of what is offered (the last load if there is
/// none), a line per scheme.
std::string SweepPlot(const SweepResult& result);

}  // namespace asymserve
