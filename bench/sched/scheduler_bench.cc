// The cost of planning and committing one decode step, with a queue behind the running sequences,
// and of coming and leaving.

#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "engine/base/check.h"
#include "engine/sched/scheduler.h"

namespace asymserve {
namespace {

constexpr int32_t kPrompt = 100;

/// Plans on a clock of processor time; the median, the 99th percentile and the longest in
/// microseconds.
class TimedPlans {
 public:
  StepPlan Plan(Scheduler& scheduler, benchmark::State& state) {
    const double begin = Seconds();
    StepPlan plan = scheduler.Plan(0);
    const double taken = Seconds() - begin;
    state.SetIterationTime(taken);
    us_.push_back(1e6 * taken);
    return plan;
  }
  void Report(benchmark::State& state) {
    std::sort(us_.begin(), us_.end());
    state.counters["p50_us"] = us_[us_.size() / 2];
    state.counters["p99_us"] = us_[us_.size() * 99 / 100];
    state.counters["max_us"] = us_.back();
  }

 private:
  static double Seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }

  std::vector<double> us_;
};

/// `running` sequences that decode for ever, past their prefill, and `waiting` that find no place.
std::unique_ptr<Scheduler> MakeScheduler(int32_t running, int32_t waiting, int32_t tenants = 1) {
  SchedulerOptions options;
  options.arena = ArenaCut::Pages(1 << 20);
  options.max_context_tokens = 1 << 26;
  options.max_running = running;
  options.max_waiting = running + waiting;
  options.step_tokens = running * kPrompt;
  auto scheduler = std::make_unique<Scheduler>(options);
  for (int32_t i = 0; i < running + waiting; ++i) {
    SequenceSpec spec;
    spec.id = SequenceId{static_cast<uint64_t>(i)};
    spec.prompt_tokens = kPrompt;
    spec.max_new_tokens = 1 << 25;
    spec.deadline = int64_t{1} << 40;
    spec.tenant = i % tenants;
    ASYMSERVE_CHECK(scheduler->Add(spec).ok());
  }
  return scheduler;
}

void CommitAll(Scheduler& scheduler, const StepPlan& plan, std::vector<Outcome>& outcomes) {
  outcomes.clear();
  for (const StepItem& item : plan.items) {
    if (item.sample) outcomes.push_back({item.sequence, false});
  }
  scheduler.Commit(plan, outcomes);
}

void PlanDecodeStep(benchmark::State& state) {
  const auto running = static_cast<int32_t>(state.range(0));
  const auto scheduler = MakeScheduler(running, static_cast<int32_t>(state.range(1)));
  std::vector<Outcome> outcomes;
  CommitAll(*scheduler, scheduler->Plan(0), outcomes);
  TimedPlans plans;
  for (auto iteration : state) {
    const StepPlan plan = plans.Plan(*scheduler, state);
    ASYMSERVE_CHECK(plan.tokens == running);
    CommitAll(*scheduler, plan, outcomes);
  }
  plans.Report(state);
}
BENCHMARK(PlanDecodeStep)
    ->Args({16, 0})
    ->Args({64, 256})
    ->Args({1000, 10'000})
    ->UseManualTime()
    ->Iterations(5'000);

void PlanAndCommitDecodeStep(benchmark::State& state) {
  const auto running = static_cast<int32_t>(state.range(0));
  const auto scheduler = MakeScheduler(running, static_cast<int32_t>(state.range(1)));
  std::vector<Outcome> outcomes;
  for (auto iteration : state) CommitAll(*scheduler, scheduler->Plan(0), outcomes);
}
BENCHMARK(PlanAndCommitDecodeStep)
    ->Args({16, 0})
    ->Args({64, 256})
    ->Args({1000, 10'000})
    ->Iterations(5'000);

/// In each step the last sequence ends, the next of the queue takes its place, and one more queues
/// up.
void ReplaceOneInAStep(benchmark::State& state) {
  const auto running = static_cast<int32_t>(state.range(0));
  const auto waiting = static_cast<int32_t>(state.range(1));
  const auto scheduler = MakeScheduler(running, waiting, static_cast<int32_t>(state.range(2)));
  uint64_t next_id = static_cast<uint64_t>(running) + static_cast<uint64_t>(waiting);
  std::vector<Outcome> outcomes;
  CommitAll(*scheduler, scheduler->Plan(0), outcomes);
  for (auto iteration : state) {
    const StepPlan plan = scheduler->Plan(0);
    state.PauseTiming();
    outcomes.clear();
    for (const StepItem& item : plan.items) {
      if (item.sample) outcomes.push_back({item.sequence, &item == &plan.items.back()});
    }
    scheduler->Commit(plan, outcomes);
    SequenceSpec spec;
    spec.id = SequenceId{next_id++};
    spec.tenant = static_cast<int32_t>(next_id) % static_cast<int32_t>(state.range(2));
    spec.prompt_tokens = kPrompt;
    spec.max_new_tokens = 1 << 25;
    ASYMSERVE_CHECK(scheduler->Add(spec).ok());
    state.ResumeTiming();
  }
}
BENCHMARK(ReplaceOneInAStep)
    ->Args({1000, 10'000, 1})
    ->Args({1000, 10'000, 1000})
    ->Iterations(5'000);

/// The head of the queue finds no room and may still be overtaken, but nobody behind it fits
/// either.
void PlanBehindAHeadWithoutRoom(benchmark::State& state) {
  SchedulerOptions options;
  options.arena = ArenaCut::Pages(2100);
  options.scheme.page_tokens = 1 << 10;
  options.scheme.chunk_tokens = 1 << 10;
  options.max_context_tokens = 1 << 21;
  options.max_running = 2000;
  options.max_waiting = 12'000;
  options.step_tokens = 1 << 20;
  options.bypass_sequences = 8;
  options.bypass_tokens = 1 << 20;
  Scheduler scheduler(options);
  const auto add = [&](uint64_t id, int32_t prompt, int32_t generated) {
    SequenceSpec spec;
    spec.id = SequenceId{id};
    spec.prompt_tokens = prompt;
    spec.max_new_tokens = generated;
    ASYMSERVE_CHECK(scheduler.Add(spec).ok());
  };
  for (uint64_t id = 0; id < 1000; ++id) add(id, 1024, 1000);  // two pages, then done
  std::vector<Outcome> outcomes;
  CommitAll(scheduler, scheduler.Plan(0), outcomes);
  add(1000, 1 << 18, 1);
  for (uint64_t id = 1001; id < 11'000; ++id) add(id, 200'000 + static_cast<int32_t>(id), 1);
  for (auto iteration : state) {
    const StepPlan plan = scheduler.Plan(0);
    state.PauseTiming();
    ASYMSERVE_CHECK(plan.tokens == 1000);
    CommitAll(scheduler, plan, outcomes);
    state.ResumeTiming();
  }
}
BENCHMARK(PlanBehindAHeadWithoutRoom)->Iterations(500);

/// All prompts are kept by the prefix cache, and the arena is full: of what running sequences hold,
/// and of the prompts of those that ended, one in each step, which the one that takes its place
/// evicts. Prompts have four chunks, the first `shared` of which are the same for all.
void PlanWithAnArenaFullOfPrompts(benchmark::State& state) {
  constexpr int32_t kChunks = 4;
  const auto running = static_cast<int32_t>(state.range(0));
  const auto shared = static_cast<int32_t>(state.range(1));
  SchedulerOptions options;
  const int32_t chunk_pages = options.scheme.chunk_tokens / options.scheme.page_tokens;
  // A prompt, and what a sequence of the mean age has generated.
  const int32_t pages = (kChunks - shared) * chunk_pages + running / options.scheme.page_tokens / 2;
  options.arena = ArenaCut::Pages(running * (pages + 2));
  options.max_context_tokens = 1 << 26;
  options.max_running = running;
  options.max_waiting = 2 * running;
  options.step_tokens = 1 << 20;
  Scheduler scheduler(options);
  uint64_t next_id = 0;
  const auto add = [&] {
    SequenceSpec spec;
    spec.id = SequenceId{next_id++};
    spec.prompt_tokens = kChunks * options.scheme.chunk_tokens + 1;
    spec.max_new_tokens = 10 * running;
    auto chain = std::make_shared<PrefixChain>();
    for (int32_t i = 0; i < kChunks; ++i) {
      PrefixHash hash = {static_cast<uint8_t>(i + 1)};
      if (i >= shared) std::memcpy(hash.data() + 1, &next_id, sizeof(next_id));
      // The index looks at the first bytes.
      hash = Sha256Of(std::as_bytes(std::span(hash)));
      chain->chunks.push_back(hash);
    }
    spec.prefix = std::move(chain);
    ASYMSERVE_CHECK(scheduler.Add(spec).ok());
  };
  std::vector<Outcome> outcomes;
  const auto commit = [&](const StepPlan& plan, size_t ends) {
    outcomes.clear();
    for (const StepItem& item : plan.items) {
      if (item.sample) outcomes.push_back({item.sequence, outcomes.size() == ends});
    }
    scheduler.Commit(plan, outcomes);
    add();
  };
  for (int32_t i = 0; i < running; ++i) add();
  for (int32_t i = 0; i < 2 * running; ++i) {
    commit(scheduler.Plan(0), static_cast<size_t>(i) * 37 % static_cast<size_t>(running));
  }
  TimedPlans plans;
  size_t step = 0;
  for (auto iteration : state) {
    const StepPlan plan = plans.Plan(scheduler, state);
    commit(plan, ++step * 37 % static_cast<size_t>(running));
  }
  plans.Report(state);
  state.counters["evictions"] = static_cast<double>(scheduler.stats().cache_evictions);
  state.counters["running"] = scheduler.stats().running;
}
BENCHMARK(PlanWithAnArenaFullOfPrompts)
    ->Args({1000, 0})
    ->Args({1000, 1})
    ->UseManualTime()
    ->Iterations(1'000);

}  // namespace
}  // namespace asymserve
