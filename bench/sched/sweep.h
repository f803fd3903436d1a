#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "bench/sched/figures.h"
#include "bench/sched/machine.h"
#include "bench/sched/simulation.h"
#include "bench/sched/workload.h"

namespace asymserve {

/// Schemes, each under every load. Loads are either `speedups` of a trace or `rates` of Poisson
/// arrivals, whose lengths are those of the trace if there is one, else `prompt` and `output`.
struct SweepOptions {
  std::string machine = "cpu-smollm2";
  std::vector<std::string> schemes = {"exact", "kivi-2", "balanced", "dense"};
  std::string profile;  // of the tiers, for machines whose tiers are not uniform
  std::string trace;    // empty: none
  std::vector<double> speedups;
  std::vector<double> rates;  // requests per second
  int64_t requests = 10'000;  // of a Poisson run
  LengthRange prompt = {64, 1024};
  LengthRange output = {16, 256};
  bool clip = true;  // requests over the context; false: dropped
  std::vector<double> tenants = {4, 1, 1, 1, 1};
  ServerSetup setup;
  ClientHabits clients;
  GoodputLimits limits;
  uint64_t seed = 1;
};

struct SweepScheme {
  std::string name;
  double bits_per_element = 0;  // of 4,096 tokens, everything included
  int64_t tokens = 0;           // of one sequence that has the arena alone
  int64_t sequences = 0;        // of the context's length, all at once
  int64_t sequences_of_1k = 0;  // of 1,024 tokens
};

struct SweepRun {
  SimFigures figures;
  std::vector<MemorySample> memory;
};

struct SweepResult {
  std::string machine;
  std::string load;   // "Poisson arrivals, lengths of conv.csv"
  ServerSetup setup;  // nothing is 0
  ClientHabits clients;
  GoodputLimits limits;
  uint64_t seed = 0;
  std::vector<SweepScheme> schemes;
  std::vector<SweepRun> runs;  // by load, then by scheme
};

/// Checks everything first; an error names the option, file or line, and nothing was run.
absl::StatusOr<SweepResult> RunSweep(const SweepOptions& options);

}  // namespace asymserve
