#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/sched/step_costs.h"

namespace asymserve {

/// What one waiting sequence adds to the queue.
struct QueueShare {
  int32_t tenant = 0;
  int32_t weight = 1;
  int32_t priority = 0;
  int32_t prefill_tokens = 0;
  int64_t cost = 0;  // Sequence::cost
};

/// Limits of a request's time, microseconds from now.
struct TimeLimits {
  std::optional<TimeUs> deadline;
  std::optional<TimeUs> max_queue;
  int32_t certain_tokens = 1;  // that it generates at least, all before its deadline
};

/// The sequences between Submit and their first step: how many may wait, how long a newcomer would,
/// and when a refused one should come back. Any thread; time is an argument.
///
/// The queue is one for all tenants. But once a tenant with less than its share of the places was
/// refused because they were taken, nobody may take more than their share for kShareTime:
/// max_waiting by weight, among the tenants that wait or were so refused; or one request, if that
/// is more. Time goes on with the steps.
///
/// A newcomer's estimate is what must happen before its first token, no more: the prefill of what
/// fair queuing puts before it, or, while the queue does not empty, as many departures and its own
/// at the rate measured; then its own prefill, beside the decode rows of those that run. All
/// prefill counts as if it were found in the prefix cache as much as the best of the newest
/// prompts. A request is refused for its time only if the estimate, and as many steps of one decode
/// row as it has further tokens that are certain, are over kCertainty times what is left to its
/// deadline (without the queue's part, when it is to leave the queue), or the queue's part over its
/// max_queue (nothing is lost by that: as long as there is a queue, the engine is busy, and nobody
/// waits for nothing), and never while nothing waits or runs: then it is the measurement.
class Backlog {
 public:
  static constexpr double kCertainty = 2;
  static constexpr std::chrono::milliseconds kMinRetry{100}, kMaxRetry{30'000},
      kUnknownRetry{1'000};
  // Longer than the longest time that a refused client is told to stay away.
  static constexpr TimeUs kShareTime = 45'000'000;
  static_assert(std::chrono::microseconds(kShareTime) > kMaxRetry);

  struct Options {
    int32_t max_waiting = 1;
    int32_t step_tokens = 1;
    int32_t chunk_tokens = 1;
    TimeUs step_us = 0;  // EngineOptions::step_us
  };
  struct Estimate {
    TimeUs queue = 0, prefill = 0;
    TimeUs first_token() const { return queue + prefill; }
  };

  explicit Backlog(const Options& options)
      : options_(options), max_waiting_(options.max_waiting), step_us_(options.step_us) {}

  /// In place of those of the options, from the next request and step on. Who waits stays.
  void SetMaxWaiting(int32_t sequences) {
    max_waiting_.store(sequences, std::memory_order_relaxed);
  }
  void SetStepTime(TimeUs step_us) {
    std::lock_guard lock(mutex_);
    step_us_ = step_us;
  }
  int32_t max_waiting() const { return max_waiting_.load(std::memory_order_relaxed); }

  /// Whether `sequences` more may wait. No lock.
  bool HasRoom(int32_t sequences) const {
    return waiting_.load(std::memory_order_relaxed) + sequences <= max_waiting();
  }
  /// What Join says of one more sequence of this tenant, but for its time. Nothing joins; a refusal
  /// counts as one of Join's.
  absl::Status CheckRoom(const QueueShare& share);
  /// A request's sequences begin to wait; only the first has prefill_tokens, the others continue
  /// its prompt. Refused, nothing changed: ResourceExhausted when the queue or the
  /// tenant's share of it is full, DeadlineExceeded when a limit has passed or clearly cannot be
  /// kept. Otherwise the last moment, in microseconds from now, at which a sequence may begin
  /// with its prompt without clearly missing the deadline: kNoDeadline if there is none, or too
  /// little is measured.
  absl::StatusOr<TimeUs> Join(const QueueShare& share, int32_t sequences, const TimeLimits& limits);
  /// One of them, the first or not, waits no longer: it runs, or has given up.
  void Leave(const QueueShare& share, bool first, bool runs);
  /// A prompt was found in the prefix cache up to `cached` of its tokens.
  void OnPrompt(int32_t tokens, int32_t cached);
  /// After each step, or planning without one: what ran (nothing: no tokens), and how many run and
  /// wait now.
  void OnStep(const StepSample& step, int32_t running, int32_t waiting, TimeUs now);

  /// Scheduler::Plan's catch_up_tokens: what the next step has time for beside `decode_rows`.
  int32_t CatchUpTokens(int32_t decode_rows) const;

  /// When the next refused request should come back: as many have left the queue by then as were
  /// refused since a step without refusals that left it half empty, this one counted. kMinRetry to
  /// kMaxRetry.
  std::chrono::milliseconds NextRetry();

  /// Absent as long as too little is measured, or nothing waits or runs.
  std::optional<Estimate> EstimateOf(const QueueShare& share) const;

 private:
  /// Sequences of one tenant that wait.
  struct Waiting {
    int32_t weight = 1;
    int64_t members = 0;
    // Of those with a priority of 0 or more; a newcomer may overtake the others.
    int64_t sequences = 0, prefill_tokens = 0, cost = 0;
  };
  /// A tenant that was refused while it had less than its share.
  struct Wanting {
    int32_t weight = 1;
    TimeUs since = -1;  // end of the step in which it was refused; -1: it goes on
  };
  std::optional<Estimate> EstimateLocked(const QueueShare& share) const;
  /// Places of a tenant, at least 1.
  int64_t PlacesOf(const QueueShare& share) const;
  int64_t WaitingOf(int32_t tenant) const;
  void RememberLocked(const QueueShare& share);
  /// ResourceExhausted when the queue is full, or the tenant would take more than its share while
  /// others want theirs.
  absl::Status CheckPlaces(const QueueShare& share, int32_t sequences);
  absl::Status CheckShare(const QueueShare& share, int32_t sequences);
  int32_t CatchUpTokensLocked(int32_t decode_rows) const;
  absl::StatusOr<TimeUs> CheckTime(const QueueShare& share, const TimeLimits& limits) const;

  const Options options_;
  std::atomic<int32_t> max_waiting_;
  std::atomic<int32_t> waiting_{0};
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  TimeUs step_us_;
  std::map<int32_t, Waiting> tenants_;
  std::map<int32_t, Wanting> wanting_;
  StepCosts costs_;
  DrainRate drain_;
  double best_hit_ = 0;  // share of a prompt, 2 % less with each prompt since
  int32_t running_ = 0, left_waiting_ = 0;
  int32_t left_ = 0, started_ = 0;  // since the last OnStep; started: of them, those that ran
  int64_t refused_ = 0;             // that places have not become free for
  bool refused_since_step_ = false;
  TimeUs last_step_ = 0;
};

}  // namespace asymserve
