#pragma once

#include <array>
#include <deque>
#include <string>
#include <utility>

#include "engine/base/metrics.h"

namespace asymserve {

/// What one label of TenantTable counts.
struct TenantMetrics {
  explicit TenantMetrics(std::string tenant) : name(std::move(tenant)) {}
  std::string name;
  Counter sequences, prompt_tokens, generated_tokens;
  Gauge waiting;
};

/// What the canary counts (runtime/canary.h).
struct CanaryMetrics {
  LossHistogram kl;             // KL(exact || scheme) of each token, nats
  Counter same_top, other_top;  // tokens by whether the likeliest is the same
  // Requests that were chosen, by what became of that.
  Counter finished;       // every token is compared
  Counter incomplete;     // cancelled, late or failed: not compared
  Counter degraded;       // it gave up refinements (kv.elastic), its shadow would not: not compared
  Counter busy;           // not compared, another was
  Counter no_memory;      // not compared: too little memory is empty
  Counter memory_wanted;  // given up: somebody took that memory
  Counter steps_wanted;   // given up: no step had time to spare
  Counter failed;         // given up: logits that are not finite
  Counter stopped;        // given up: the engine stopped
};

/// What the engine counts. Written by the engine and delivery threads, read by any.
struct EngineMetrics {
  Counter prompt_tokens, generated_tokens, recomputed_tokens;
  Counter preemptions, steps;
  Counter blocked_steps;                   // SchedulerStats::blocked_plans
  Counter degraded;                        // sequences (EngineOptions::elastic)
  Counter cached_tokens, cache_evictions;  // of the prefix cache
  Counter finished_eos, finished_stop, finished_length, finished_cancelled, finished_deadline,
      finished_queue_timeout, finished_error;  // sequences
  Gauge waiting, running;                      // sequences
  Gauge pages_total, pages_used;
  Gauge slabs_total, slabs_used, slabs_cached;  // of the KV arena
  std::array<Gauge, 3> records_used;            // SchedulerStats::records_used
  Gauge last_step_us;                           // steady clock at the end of the newest step
  LatencyHistogram queue_seconds, time_to_first_token, inter_token, end_to_end;
  LatencyHistogram step_prefill_seconds;    // steps with prefill tokens
  LatencyHistogram step_decode_seconds;     // steps with decode tokens only
  LatencyHistogram cancel_to_free_seconds;  // Cancel call to pages released
  CanaryMetrics canary;
  std::deque<TenantMetrics> tenants;  // by TenantTable's label, fixed at start
};

}  // namespace asymserve
