#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/kv/ids.h"
#include "engine/kv/page_store.h"
#include "engine/model/model.h"
#include "engine/runtime/engine_metrics.h"
#include "engine/runtime/request.h"
#include "engine/runtime/tenant_table.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

struct EngineOptions {
  KvScheme scheme;  // what the backend was set up with
  ArenaCut arena;
  int32_t max_context_tokens = 0;  // 0: the model's
  int32_t max_running = 64;        // sequences in one batch
  int32_t max_waiting = 256;       // sequences in the queue; more are refused
  int32_t step_tokens = 512;       // token budget of one step
  /// What a step in which somebody decodes should take at most, by measured times: prompts get what
  /// the decode rows leave of it, but a quarter of the step at least. 0: no limit.
  int64_t step_us = 0;
  bool prefix_cache = true;          // share the KV pages of prompts that begin alike
  std::string cache_identity;        // model, profile and scheme, for the hashes of prompts
  int32_t watermark_pages = -1;      // -1: one page per running sequence, at most 5 % of the pool
  int64_t aging_us = 10'000'000;     // SchedulerOptions::aging_us
  int32_t bypass_sequences = 8;      // SchedulerOptions::bypass_sequences
  int64_t bypass_tokens = 0;         // 0: max_context_tokens
  bool elastic = false;              // SchedulerOptions::elastic
  double canary_rate = 0;            // share of the requests that are compared (Canary), 0 to 1
  std::vector<TenantShare> tenants;  // with a weight of their own
};

/// The continuous-batching engine: one engine thread, one delivery thread (engine/README.md).
/// `model` and `tokenizer` outlive it.
class Engine {
 public:
  Engine(Model& model, const Tokenizer& tokenizer, const EngineOptions& options);
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  /// Cancels what still runs, delivers every final delta, joins both threads.
  ~Engine();

  /// Whether a request of `tenant` may wait, as Submit would say it: a server asks before it
  /// parses, let alone tokenizes. ResourceExhausted when the queue or the tenant's share of it is
  /// full. Any thread; short locks.
  absl::Status CheckRoom(const std::string& tenant);
  /// True while the queue has room for `sequences` more. Any thread, no lock.
  bool HasRoom(int32_t sequences) const;
  /// When the client that is refused now should come back (Backlog::NextRetry). Once a refusal.
  std::chrono::milliseconds RetryAfter();

  /// Any thread, never blocks. On success the sink gets deltas and exactly one final delta per
  /// sequence (index 0 .. n-1). Refused, nothing is touched: InvalidArgument names the field,
  /// ResourceExhausted: queue full, DeadlineExceeded: it would come too late (Backlog),
  /// Unavailable: draining or failed.
  absl::StatusOr<RequestId> Submit(GenerateRequest request, std::shared_ptr<OutputSink> sink);

  /// Ends a request; its pages are free within one step. Its sink still gets final deltas. Any
  /// thread.
  void Cancel(RequestId id);

  // What may change while the engine runs: EngineOptions by that name. Any thread, never blocks.
  /// From the next request on; who waits stays. FailedPrecondition beyond
  /// EngineOptions::max_waiting: memory was planned for no more.
  absl::Status SetMaxWaiting(int32_t sequences);
  void SetStepTime(int64_t step_us);
  /// Of the requests that end from now on, as EngineOptions::canary_rate.
  void SetCanaryRate(double rate);
  /// In place of EngineOptions::tenants, as TenantTable::SetWeights; of requests from now on.
  void SetTenantWeights(const std::vector<TenantShare>& tenants);
  /// Within a step, drops what the prefix cache keeps and no sequence holds. Any thread.
  void DropPrefixCache();

  /// Submit is refused with Unavailable from now on; what was accepted goes on. Any thread.
  void StartDrain();
  /// Waits until nothing waits or runs and every delta was delivered; false on timeout.
  bool WaitIdle(std::chrono::milliseconds timeout);

  /// Not OK after a terminal failure (device error): every request ended with INTERNAL.
  absl::Status health() const;

  const EngineMetrics& metrics() const;
  /// The canary's rate, or 0 where there is nothing to compare (CanaryRate).
  double canary_rate() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace asymserve
