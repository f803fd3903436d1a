#include "bench/sched/simulation.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>

#include "absl/strings/str_cat.h"

#include "bench/sched/step_cost.h"
#include "engine/base/check.h"
#include "engine/kv/capacity.h"
#include "engine/runtime/backlog.h"
#include "engine/runtime/engine.h"

namespace asymserve {
namespace {

constexpr int64_t kMemorySamples = 120;
constexpr int32_t kManyRunning = 100;  // with fewer, asking for processor time costs more than Plan

using Clock = std::chrono::steady_clock;

/// Processor time of this thread.
int64_t CpuNanoseconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

template <typename T>
absl::Status Choose(const char* field, T setup, T machine, T most, T& value) {
  value = setup == 0 ? machine : setup;
  if (value >= 1 && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": must be from 1 to ", most, ", got ", setup));
}

absl::StatusOr<SchedulerOptions> MakeOptions(const Machine& machine, const KvScheme& scheme,
                                             const ServerSetup& setup) {
  SchedulerOptions options;
  options.scheme = scheme;
  int64_t kv_bytes = 0;
  for (const absl::Status& status :
       {CheckKvScheme(scheme, machine.shape),
        Choose("kv_bytes", setup.kv_bytes, machine.kv_bytes, int64_t{1} << 46, kv_bytes),
        Choose("context_tokens", setup.context_tokens, machine.context_tokens, 1 << 20,
               options.max_context_tokens),
        Choose("max_running", setup.max_running, machine.max_running, 1 << 16, options.max_running),
        Choose("max_waiting", setup.max_waiting, machine.max_waiting, 10'000'000,
               options.max_waiting),
        Choose("step_tokens", setup.step_tokens, machine.step_tokens, 1 << 20,
               options.step_tokens)}) {
    if (!status.ok()) return status;
  }
  if (options.step_tokens < options.max_running) {
    return absl::InvalidArgumentError(absl::StrCat("step_tokens: ", options.step_tokens,
                                                   " are fewer than max_running, ",
                                                   options.max_running));
  }
  options.arena = ArenaCut(KvLayout(machine.shape, scheme), kv_bytes);
  const int64_t tokens = TokensAlone(KvLayout(machine.shape, scheme), scheme, options.arena);
  if (tokens < options.max_context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("kv_bytes: ", kv_bytes, " hold ", tokens, " tokens in scheme ", scheme.name,
                     ", the context is ", options.max_context_tokens));
  }
  options.elastic = setup.elastic;
  // As the engine does by default: what may overtake a head of the queue, and of the pool a page
  // per running sequence, at most 5 %.
  options.bypass_sequences = setup.bypass_sequences.value_or(EngineOptions().bypass_sequences);
  options.bypass_tokens = options.max_context_tokens;
  const int64_t reserve = std::min<int64_t>(options.max_running, tokens / scheme.page_tokens / 20);
  options.watermark_pages = setup.watermark_pages.value_or(static_cast<int32_t>(reserve));
  if (options.bypass_sequences < 0 || options.watermark_pages < 0) {
    return absl::InvalidArgumentError("bypass, watermark-pages: must be 0 or more");
  }
  return options;
}

class Simulation {
 public:
  Simulation(const SchedulerOptions& options, const ServerSetup& setup, const StepCost& cost,
             const ClientHabits& clients, const std::vector<SimRequest>& requests)
      : context_(options.max_context_tokens),
        one_queue_(setup.one_queue),
        cost_(cost),
        clients_(clients),
        requests_(requests),
        began_(requests.size()),
        backlog_({.max_waiting = options.max_waiting,
                  .step_tokens = options.step_tokens,
                  .chunk_tokens = options.scheme.chunk_tokens,
                  .step_us = setup.step_us}),
        scheduler_(options) {
    result_.slabs = options.arena.slabs;
    result_.outcomes.resize(requests.size());
    sample_interval_ = requests.empty() ? 1 : requests.back().arrival / kMemorySamples + 1;
  }

  SimResult Run() {
    while (next_ < requests_.size() || !scheduler_.idle()) {
      if (scheduler_.idle()) now_ = std::max(now_, requests_[next_].arrival);
      Arrive();
      GiveUp();
      Step();
    }
    Finish();
    return std::move(result_);
  }

 private:
  /// The only place that knows what a sequence's description has.
  SequenceSpec MakeSpec(size_t index) const {
    const SimRequest& request = requests_[index];
    SequenceSpec spec;
    spec.id = SequenceId{index};
    spec.prompt_tokens = request.prompt_tokens;
    spec.max_new_tokens = std::max(request.output_tokens,
                                   std::min(clients_.ask_tokens, context_ - request.prompt_tokens));
    spec.tenant = one_queue_ ? 0 : request.tenant;
    spec.arrival = request.arrival;
    if (clients_.deadline_us > 0) spec.deadline = request.arrival + clients_.deadline_us;
    return spec;
  }

  /// What the engine tells its backlog.
  QueueShare ShareOf(size_t index) const {
    const SequenceSpec spec = MakeSpec(index);
    return {.tenant = spec.tenant,
            .weight = spec.weight,
            .priority = spec.priority,
            .prefill_tokens = spec.prompt_tokens,
            .cost = int64_t{spec.prompt_tokens} + spec.max_new_tokens};
  }

  void Arrive() {
    for (; next_ < requests_.size() && requests_[next_].arrival <= now_; ++next_) {
      TimeLimits limits;
      if (clients_.deadline_us > 0) {
        limits.deadline = requests_[next_].arrival + clients_.deadline_us - now_;
      }
      result_.outcomes[next_].end = SimOutcome::End::kRefused;
      const absl::StatusOr<TimeUs> start_by = backlog_.Join(ShareOf(next_), 1, limits);
      if (!start_by.ok()) continue;
      SequenceSpec spec = MakeSpec(next_);
      if (*start_by != kNoDeadline) spec.queue_deadline = now_ + *start_by;
      if (scheduler_.Add(spec).ok()) {
        result_.outcomes[next_].end = SimOutcome::End::kFinished;
      } else {
        backlog_.Leave(ShareOf(next_), /*first=*/true, /*runs=*/false);
      }
    }
  }

  /// A sequence has its first step, or ended without one.
  void LeaveBacklog(SequenceId id, bool runs) {
    const auto index = static_cast<size_t>(id);
    if (began_[index]) return;
    began_[index] = true;
    backlog_.Leave(ShareOf(index), /*first=*/true, runs);
  }

  void GiveUp() {
    if (clients_.patience_us == 0) return;
    for (; impatient_ < next_ && requests_[impatient_].arrival + clients_.patience_us <= now_;
         ++impatient_) {
      SimOutcome& outcome = result_.outcomes[impatient_];
      if (outcome.end != SimOutcome::End::kFinished || outcome.sampled > 0) continue;
      outcome.end = SimOutcome::End::kGaveUp;
      scheduler_.Cancel(SequenceId{impatient_});
      LeaveBacklog(SequenceId{impatient_}, /*runs=*/false);
    }
  }

  void Step() {
    const int32_t catch_up_tokens = backlog_.CatchUpTokens(decoding_);
    const bool many = scheduler_.stats().running >= kManyRunning;
    const int64_t cpu_before = many ? CpuNanoseconds() : 0;
    const Clock::time_point before = Clock::now();
    const StepPlan plan = scheduler_.Plan(now_, catch_up_tokens);
    const std::chrono::duration<float, std::micro> took = Clock::now() - before;
    const int64_t cpu_ns = many ? CpuNanoseconds() - cpu_before : 0;
    for (const SequenceId id : plan.expired) {
      OutcomeOf(id).end = SimOutcome::End::kExpired;
      LeaveBacklog(id, /*runs=*/false);
    }
    if (plan.empty()) {
      TellBacklog(plan, 0);
      return;
    }
    const SchedulerStats stats = scheduler_.stats();
    result_.plans.push_back(
        {stats.running, stats.waiting, took.count(), static_cast<float>(cpu_ns) * 1e-3F});
    const TimeUs step_us = cost_.Of(plan);
    Observe(stats, step_us);
    now_ += step_us;
    result_.computed_tokens += plan.tokens;
    Deliver(plan);
    scheduler_.Commit(plan, scheduled_);
    TellBacklog(plan, step_us);
  }

  void TellBacklog(const StepPlan& plan, TimeUs step_us) {
    StepSample sample{.duration = step_us};
    for (const StepItem& item : plan.items) {
      LeaveBacklog(item.sequence, /*runs=*/true);
      const bool prefill = item.role == StepItem::Role::kPrefill;
      (prefill ? sample.prefill_tokens : sample.decode_rows) += item.count;
    }
    const SchedulerStats stats = scheduler_.stats();
    backlog_.OnStep(sample, stats.running, stats.waiting, now_);
  }

  void Deliver(const StepPlan& plan) {
    scheduled_.clear();
    decoding_ = 0;
    for (const StepItem& item : plan.items) {
      if (!item.sample) continue;
      SimOutcome& outcome = OutcomeOf(item.sequence);
      if (++outcome.sampled == 1) outcome.first_token = now_;
      outcome.last_token = now_;
      const SimRequest& request = requests_[static_cast<size_t>(item.sequence)];
      const bool finished = outcome.sampled >= request.output_tokens;
      scheduled_.push_back({item.sequence, finished});
      decoding_ += finished ? 0 : 1;
    }
  }

  /// Memory and running sequences during the step that now begins.
  void Observe(const SchedulerStats& stats, TimeUs step_us) {
    const double used = static_cast<double>(stats.slabs_used) / std::max(1, stats.slabs_total);
    result_.peak_used = std::max(result_.peak_used, used);
    result_.peak_running = std::max(result_.peak_running, stats.running);
    result_.peak_waiting = std::max(result_.peak_waiting, stats.waiting);
    used_time_ += used * static_cast<double>(step_us);
    running_time_ += stats.running * static_cast<double>(step_us);
    interval_used_ += used * static_cast<double>(step_us);
    const TimeUs end = now_ + step_us;
    if (end < interval_begin_ + sample_interval_) return;
    const double mean = interval_used_ / static_cast<double>(end - interval_begin_);
    result_.memory.push_back({end, mean, stats.running, stats.waiting});
    interval_begin_ = end;
    interval_used_ = 0;
  }

  void Finish() {
    result_.end = now_;
    const auto time = static_cast<double>(std::max<TimeUs>(now_, 1));
    result_.mean_used = used_time_ / time;
    result_.mean_running = running_time_ / time;
    result_.scheduler = scheduler_.stats();
    ASYMSERVE_CHECK(result_.scheduler.slabs_used == 0);
  }

  SimOutcome& OutcomeOf(SequenceId id) { return result_.outcomes[static_cast<size_t>(id)]; }

  const int32_t context_;
  const bool one_queue_;
  const StepCost& cost_;
  const ClientHabits clients_;
  const std::vector<SimRequest>& requests_;
  std::vector<bool> began_;  // or ended without; by request
  Backlog backlog_;
  int32_t decoding_ = 0;  // sequences that the newest step left in decode
  Scheduler scheduler_;
  SimResult result_;
  TimeUs now_ = 0, interval_begin_ = 0, sample_interval_ = 1;
  size_t next_ = 0;       // to arrive
  size_t impatient_ = 0;  // all before have lost their patience or have their first token
  double used_time_ = 0, running_time_ = 0, interval_used_ = 0;
  std::vector<Outcome> scheduled_;
};

}  // namespace

absl::StatusOr<SimResult> Simulate(const Machine& machine, const KvScheme& scheme,
                                   const ServerSetup& setup, const ClientHabits& clients,
                                   const std::vector<SimRequest>& requests) {
  const auto speed = machine.Speed(scheme.name);
  if (!speed.ok()) return speed.status();
  const auto options = MakeOptions(machine, scheme, setup);
  if (!options.ok()) return options.status();
  const StepCost cost(machine, *speed, scheme);
  return Simulation(*options, setup, cost, clients, requests).Run();
}

}  // namespace asymserve
