#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench/sched/simulation.h"

namespace asymserve {

/// What a request must have to count: both, and be finished.
struct GoodputLimits {
  double ttft_ms = 2000;  // from arrival to the first token
  double tpot_ms = 100;   // mean time between its tokens after the first
};

/// The figures of one run, in the order in which they are printed.
struct SimFigures {
  std::string scheme;
  double bits_per_element = 0;  // of 4,096 tokens, everything included
  int64_t requests = 0, clipped = 0, dropped = 0;
  double offered_per_second = 0;
  double goodput_per_second = 0;
  double ttft_p50_ms = 0, ttft_p99_ms = 0;
  double tpot_p50_ms = 0, tpot_p99_ms = 0;
  int64_t finished = 0, refused = 0, expired = 0, gave_up = 0;
  double fairness = 0;  // FairnessIndex of the tenants' tokens
  double waste = 0;     // recomputed / computed tokens
  int64_t preemptions = 0;
  int64_t unrefined = 0;  // sequences that gave up their refinements
  int32_t peak_running = 0, peak_waiting = 0;
  double mean_running = 0;
  double peak_memory = 0, mean_memory = 0;  // of the arena
  int64_t steps = 0;
  double simulated_seconds = 0;
  // On the real clock: not the same in every run.
  double plan_p50_us = 0, plan_p99_us = 0, plan_max_us = 0;
  // Of steps with at least 95 % of the most running and of the most waiting sequences, in processor
  // time, which is not taken with fewer than 100 running. No such step: all are 0.
  int64_t plan_full_count = 0;
  double plan_full_cpu_p50_us = 0, plan_full_cpu_p99_us = 0, plan_full_cpu_p999_us = 0;
  double plan_full_cpu_max_us = 0;
  double plan_full_over_100us = 0;  // share of them
  double wall_seconds = 0;
};

/// The smallest value that at least the fraction `q` of all values does not exceed; 0 of none.
double Quantile(std::vector<double> values, double q);

/// Jain's index, (sum x)^2 / (n sum x^2), of x_i = served_i / fair_i, where fair_i is tenant i's
/// part of sum(served) under max-min fairness with demands `demanded`: 1 when nobody could get more
/// but at the cost of somebody who has less, 1/n when one has everything. Tenants that demand
/// nothing do not count; 1 when nothing was served.
double FairnessIndex(const std::vector<double>& served, const std::vector<double>& demanded);

SimFigures FiguresOf(const SimResult& result, const Workload& workload, int32_t tenants,
                     const GoodputLimits& limits);

}  // namespace asymserve
