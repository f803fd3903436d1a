#pragma once

#include <cstdint>
#include <vector>

#include "bench/sched/request_trace.h"
#include "engine/sched/sequence.h"

namespace asymserve {

struct SimRequest {
  TimeUs arrival = 0;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;  // after which its text ends
  int32_t tenant = 0;

  friend bool operator==(const SimRequest&, const SimRequest&) = default;
};

/// Requests in order of arrival.
struct Workload {
  std::vector<SimRequest> requests;
  int64_t clipped = 0;  // output shortened to the context
  int64_t dropped = 0;  // prompt that leaves no room for a token, or over the context at all

  double offered_per_second() const;  // requests over the time to the last arrival
};

/// Uniform on [low, high].
struct LengthRange {
  int32_t low = 1;
  int32_t high = 1;
};

/// The requests of a trace, time divided by `speedup` > 0.
Workload TraceWorkload(const std::vector<TraceRow>& rows, double speedup);

/// `count` requests at exponential intervals of 1 / `rate` seconds, rate > 0. The same seed gives
/// the same lengths, and the same arrivals up to their scale, at every rate.
Workload PoissonWorkload(double rate, int64_t count, LengthRange prompt, LengthRange output,
                         uint64_t seed);
/// The same, lengths drawn from the rows of a trace.
Workload PoissonWorkload(double rate, int64_t count, const std::vector<TraceRow>& rows,
                         uint64_t seed);

/// What is longer than the context is clipped (its output ends there), or dropped.
void FitToContext(int32_t context_tokens, bool clip, Workload& workload);

/// Gives every request a tenant, tenant i with probability shares[i] / sum; shares > 0.
void DrawTenants(const std::vector<double>& shares, uint64_t seed, Workload& workload);

}  // namespace asymserve
