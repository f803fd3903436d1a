#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"

#include "bench/sched/machine.h"
#include "bench/sched/workload.h"
#include "engine/kv/scheme.h"
#include "engine/sched/scheduler.h"

namespace asymserve {

/// How a server is set up, beyond its machine and scheme; 0: the machine's.
struct ServerSetup {
  int64_t kv_bytes = 0;
  int32_t context_tokens = 0;
  int32_t max_running = 0;
  int32_t max_waiting = 0;
  int32_t step_tokens = 0;
  bool elastic = false;     // SchedulerOptions::elastic
  TimeUs step_us = 80'000;  // EngineOptions::step_us, as servers have it by default; 0: no limit
  // Policies, to compare with what servers do:
  bool one_queue = false;  // tenants are not told apart: first come, first served
  std::optional<int32_t> bypass_sequences = {};  // SchedulerOptions; empty: EngineOptions'
  std::optional<int32_t> watermark_pages = {};  // likewise; empty: a page per sequence, at most 5 %
};

/// What clients do.
struct ClientHabits {
  /// max_new_tokens that requests ask for, as far as the context has room; a text ends when it ends
  /// by itself. 0: exactly what they will get.
  int32_t ask_tokens = 0;
  TimeUs deadline_us = 0;  // after arrival, given to the scheduler; 0: none
  TimeUs patience_us = 0;  // without a first token a client cancels after that long; 0: never
};

/// What became of a request.
struct SimOutcome {
  enum class End : uint8_t {
    kFinished,
    kRefused,  // by the backlog
    kExpired,  // its deadline passed
    kGaveUp,   // its client cancelled
  };
  End end = End::kRefused;
  int32_t sampled = 0;
  TimeUs first_token = 0;  // when it was delivered, the last one likewise; of requests that sampled
  TimeUs last_token = 0;
};

/// One Plan() call that gave a step.
struct PlanSample {
  int32_t running = 0;
  int32_t waiting = 0;
  float plan_us = 0;  // on the real clock
  float cpu_us = 0;   // of processor time, without what else ran meanwhile; from 100 running on
};

struct MemorySample {
  TimeUs at = 0;
  double used = 0;  // of the arena's slabs, on average since the sample before
  int32_t running = 0;
  int32_t waiting = 0;
};

struct SimResult {
  int32_t slabs = 0;
  std::vector<SimOutcome> outcomes;  // by request
  std::vector<PlanSample> plans;
  std::vector<MemorySample> memory;  // about 120, evenly in time
  double peak_used = 0;
  double mean_used = 0, mean_running = 0;  // over time
  int32_t peak_running = 0, peak_waiting = 0;
  int64_t computed_tokens = 0;
  SchedulerStats scheduler;  // at the end
  TimeUs end = 0;            // of the last step
};

/// Serves the requests with the real backlog and scheduler, steps taking what the machine's model
/// says: Join, Plan, the step, Commit, one after the other, as the engine does. Requests that
/// arrive during a step reach the scheduler at its end. Runs until nothing waits or runs.
///
/// InvalidArgument when the scheme has no figures on the machine, when a number is out of range, or
/// when the arena does not hold one sequence of the context.
absl::StatusOr<SimResult> Simulate(const Machine& machine, const KvScheme& scheme,
                                   const ServerSetup& setup, const ClientHabits& clients,
                                   const std::vector<SimRequest>& requests);

}  // namespace asymserve
