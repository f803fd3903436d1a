#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "engine/kv/capacity.h"
#include "engine/sched/scheduler.h"
#include "tests/engine/sched/default_scheme.h"

// As many sequences as the planner says run at once, the prefix cache keeping what it can, and none
// is ever preempted: what is planned is kept, records scattered over slabs and all.

namespace asymserve {
namespace {

struct Case {
  std::string scheme;
  KvLoad load;
  int64_t arena_bytes;
};

void PrintTo(const Case& a, std::ostream* out) {
  *out << a.scheme << ", " << a.load.prompt_tokens << " + " << a.load.output_tokens << " tokens in "
       << (a.arena_bytes >> 20) << " MiB";
}

class PlannedCapacityTest : public ::testing::TestWithParam<Case> {};

TEST_P(PlannedCapacityTest, RunsWithoutAPreemption) {
  const KvLoad& load = GetParam().load;
  SchedulerOptions options;
  options.scheme = GetParam().scheme == "balanced"
                       ? BalancedScheme()
                       : *NamedKvScheme(GetParam().scheme, kDefaultShape);
  options.arena = ArenaCut(KvLayout(kDefaultShape, options.scheme), GetParam().arena_bytes);
  options.max_context_tokens = static_cast<int32_t>(load.tokens());
  const auto planned = static_cast<int32_t>(
      CapacityOf(kDefaultShape, options.scheme, GetParam().arena_bytes, load).sequences);
  ASSERT_GT(planned, 10);
  options.max_running = planned;
  options.max_waiting = planned;
  options.step_tokens = load.step_tokens;
  Scheduler scheduler(options);
  for (int32_t i = 0; i < planned; ++i) {
    SequenceSpec spec;
    spec.id = SequenceId{static_cast<uint64_t>(i)};
    spec.prompt_tokens = static_cast<int32_t>(load.prompt_tokens);
    spec.max_new_tokens = static_cast<int32_t>(load.output_tokens);
    auto chain = std::make_shared<PrefixChain>();
    for (int32_t chunk = 0; chunk < spec.prompt_tokens / options.scheme.chunk_tokens; ++chunk) {
      chain->chunks.push_back(
          {static_cast<uint8_t>(i), static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(chunk), 1});
    }
    spec.prefix = std::move(chain);
    ASSERT_TRUE(scheduler.Add(spec).ok());
  }
  int32_t most = 0;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.Plan(0);
    std::vector<Outcome> outcomes;
    for (const StepItem& item : plan.items) {
      if (item.sample) outcomes.push_back({item.sequence, false});
    }
    scheduler.Commit(plan, outcomes);
    most = std::max(most, scheduler.stats().running);
  }
  EXPECT_EQ(most, planned);
  EXPECT_EQ(scheduler.stats().preemptions, 0U);
}

KvLoad Load(int64_t prompt, int64_t output) {
  return {.prompt_tokens = prompt, .output_tokens = output, .step_tokens = 1024};
}

INSTANTIATE_TEST_SUITE_P(SchemesAndLengths, PlannedCapacityTest,
                         ::testing::Values(Case{"balanced", Load(768, 256), 188 << 20},
                                           Case{"balanced", Load(3584, 512), 755 << 20},
                                           Case{"balanced", Load(256, 1000), 900 << 20},
                                           Case{"kivi-2", Load(768, 256), 188 << 20},
                                           Case{"kivi-2", Load(2000, 1000), 755 << 20},
                                           Case{"fit-2/1", Load(768, 256), 377 << 20},
                                           Case{"exact", Load(768, 256), 377 << 20}));

}  // namespace
}  // namespace asymserve
