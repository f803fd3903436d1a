// The cost of planning and committing one decode step, with a queue behind the running sequences.

#include <benchmark/benchmark.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "engine/base/check.h"
#include "engine/sched/scheduler.h"

namespace asymserve {
namespace {

constexpr int32_t kPrompt = 100;

/// `running` sequences that decode for ever, past their prefill, and `waiting` that find no place.
std::unique_ptr<Scheduler> MakeScheduler(int32_t running, int32_t waiting) {
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
  for (auto iteration : state) {
    const StepPlan plan = scheduler->Plan(0);
    state.PauseTiming();
    ASYMSERVE_CHECK(plan.tokens == running);
    CommitAll(*scheduler, plan, outcomes);
    state.ResumeTiming();
  }
}
BENCHMARK(PlanDecodeStep)->Args({16, 0})->Args({64, 256})->Args({1000, 10'000})->Iterations(5'000);

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

}  // namespace
}  // namespace asymserve
