#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/model/model.h"
#include "engine/runtime/backlog.h"
#include "engine/runtime/batch_arrays.h"
#include "engine/runtime/canary.h"
#include "engine/runtime/delivery.h"
#include "engine/runtime/engine_metrics.h"
#include "engine/runtime/generation.h"
#include "engine/runtime/step_sampling.h"
#include "engine/sched/scheduler.h"

namespace asymserve {

/// What the engine thread does, without the thread: plan, run the model, sample, commit, hand over
/// the output. Time is an argument.
class EngineLoop {
 public:
  /// Sequences leave `backlog` with their first step or their end, and it learns what steps cost.
  EngineLoop(Model& model, const Tokenizer& tokenizer, const SchedulerOptions& options,
             double canary_rate, Delivery& delivery, EngineMetrics& metrics, Backlog& backlog);

  void Add(const std::shared_ptr<const ActiveRequest>& request, TimeUs now);
  void Cancel(RequestId id, TimeUs called_at, TimeUs now);
  /// Runs one step, of users' sequences, the canary, or both. False if there is nothing to run.
  /// After a model's error only EndAll may follow, which ends the sequences with it.
  absl::StatusOr<bool> Step(TimeUs now);
  /// Ends every sequence with `reason` (and `error`, for kError).
  void EndAll(FinishReason reason, const absl::Status& error, TimeUs now);

  TimeUs next_deadline() const { return scheduler_.next_deadline(); }
  /// Nobody waits or runs; the canary may.
  bool idle() const { return sequences_.empty(); }
  /// Drops what the prefix cache keeps and no sequence holds. Between steps.
  void DropPrefixCache() { scheduler_.DropKept(); }
  /// Any thread, as the rate.
  void SetCanaryRate(double rate) { canary_.SetRate(rate); }
  double canary_rate() const { return canary_.rate(); }

 private:
  /// Gives a sequence to the scheduler; `start_by` as that of ActiveRequest.
  void Schedule(const ActiveRequest& request, int32_t index, TimeUs queued_at, TimeUs start_by,
                TimeUs now);
  /// And those of a request that wait for the first one's first token. That time is not the
  /// queue's.
  void ScheduleOthers(Generation& first, TimeUs now);
  /// Why a sequence that the scheduler gave up ends, with the error that says it, if there is one.
  static std::pair<FinishReason, absl::Status> WhyExpired(const Generation& generation, TimeUs now);
  void BuildBatch(const StepPlan& plan, TimeUs now);
  /// What follows from a step that has run: tokens, ends, reports. The number of rows of logits
  /// that it took.
  int64_t TakeTokens(const StepPlan& plan, const TensorView& logits, bool with_canary,
                     TimeUs began);
  /// What follows from a sequence's next token, or from there being none; queues its delta.
  void Advance(Generation& generation, const absl::StatusOr<SampledToken>& token, TimeUs now);
  void Accept(Generation& generation, const SampledToken& token, Delta& delta);
  void FillFinal(const Generation& generation, Delta& delta, TimeUs now) const;
  /// Queues the final delta of a sequence that ended outside a step, and forgets it, with those
  /// that still wait for its first token.
  void End(SequenceId id, FinishReason reason, const absl::Status& error, TimeUs now);
  void CountFinish(const Generation& generation, TimeUs now);
  void LeaveQueue(Generation& generation, TimeUs now);
  void CountComputed(Generation& generation, const StepItem& item);
  /// It waits no longer: it runs, or has ended.
  void LeaveBacklog(const Generation& generation, bool runs, TimeUs now);
  /// Tells the backlog about a step, or about planning one of nothing.
  void ReportStep(const StepPlan& plan, bool with_canary, TimeUs duration, TimeUs now);
  void PublishGauges();

  Model& model_;
  const Tokenizer& tokenizer_;
  Scheduler scheduler_;
  Delivery& delivery_;
  EngineMetrics& metrics_;
  Backlog& backlog_;
  std::unordered_map<SequenceId, std::unique_ptr<Generation>> sequences_;
  int32_t others_waiting_ = 0;  // sequences whose request's first computes their prompt
  std::vector<Outgoing> outgoing_;
  int32_t decoding_ = 0;  // sequences that the newest step left in decode

  Canary canary_;
  BatchArrays batch_;
  StepSampling sampling_;
};

}  // namespace asymserve
