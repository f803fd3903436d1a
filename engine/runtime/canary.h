#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/runtime/batch_arrays.h"
#include "engine/runtime/engine_metrics.h"
#include "engine/runtime/generation.h"
#include "engine/sched/scheduler.h"
#include "engine/sched/shadow.h"

namespace asymserve {

struct CanaryOptions {
  double rate = 0;  // share of the requests, 0 to 1
  KvScheme scheme;
  ArenaCut arena;
  int32_t step_tokens = 0;  // of a step at most, users' and the canary's
  int32_t max_rows = 0;     // of logits of a step at most
};

/// The rate in effect: 0 when the scheme is exact, so that there is nothing to compare, or a step
/// is too small for two sequences.
double CanaryRate(const CanaryOptions& options);

/// Compares what users get with what exact keys and values would have given them: a share of the
/// requests, once they have ended, is computed again, in the scheme's precision and exactly
/// (sched/shadow.h), and every generated token's two rows of logits are compared. One at a time; a
/// request that ends meanwhile is counted as `busy`.
///
/// It takes nothing that a user's sequence could use. Memory: slabs that are empty, as long as they
/// are; when one of them is taken, the request is given up. Time: kStepTokens at most, in steps in
/// which nobody waits, computes a prompt or catches up, of what those would be given by
/// engine.step_ms; after kMaxPause steps without any it is given up. So a user's token may come
/// later by the time of kStepTokens tokens, and is the same. Engine thread only, but for the rate.
class Canary {
 public:
  static constexpr int32_t kStepTokens = 16;
  static constexpr int32_t kMaxPause = 4096;

  Canary(const CanaryOptions& options, CanaryMetrics& metrics);

  /// Whether the request is one of those that are compared: by a hash of its id and seed.
  bool Chooses(RequestId id, uint64_t seed) const;
  /// A sequence has ended, and the scheduler knows it no more. Takes its tokens if it is compared.
  void OnEnd(Generation& generation, const RecordPool& arena);

  /// After each plan of the scheduler, `waiting` as that says, `catch_up_tokens` as it was told:
  /// adds the canary's share of the step to the batch, behind everybody else's. False if it has
  /// none.
  bool Join(const StepPlan& plan, int32_t waiting, int32_t catch_up_tokens, const RecordPool& arena,
            BatchArrays& batch);
  /// The step has run: its logits, those of the canary from row `first` on.
  void Compare(const TensorView& logits, int64_t first);
  /// Gives up; counted as `stopped`.
  void Stop();

  /// Of the requests that end from now on. Any thread.
  void SetRate(double rate);
  /// CanaryRate. Any thread.
  double rate() const { return rate_.load(std::memory_order_relaxed); }
  bool active() const { return shadow_ != nullptr; }

 private:
  /// Tokens that the step has for it.
  int32_t SpareTokens(const StepPlan& plan, int32_t waiting, int32_t catch_up_tokens) const;
  void End(Counter& result);

  const CanaryOptions options_;
  std::atomic<double> rate_;
  CanaryMetrics& metrics_;
  std::unique_ptr<Shadow> shadow_;  // null: nothing is compared
  std::vector<int32_t> tokens_;     // of its sequence, prompt first
  ShadowStep step_;                 // its share of the newest step
  int32_t paused_ = 0;              // steps since its newest share
};

}  // namespace asymserve
