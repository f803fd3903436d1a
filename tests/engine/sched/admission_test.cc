#include <gtest/gtest.h>

#include <vector>

#include "engine/kv/page_store.h"
#include "engine/sched/scheduler.h"

// Admission of sequences whose pages are sealed.

namespace asymserve {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 2, .head_size = 64};
constexpr int32_t kDecoding = 8;
constexpr int32_t kPrompt = 1000;
constexpr int32_t kSteps = 40;  // of decoding: sealing has caught up with every prompt

SchedulerOptions Options(int32_t slabs) {
  SchedulerOptions options;
  options.scheme = *NamedKvScheme("fit-2/1", kShape);
  options.arena = ArenaCut(KvLayout(kShape, options.scheme), 0);
  options.arena.slabs = slabs;
  options.max_context_tokens = 4096;
  options.max_running = 16;
  options.max_waiting = 16;
  options.step_tokens = 4096;
  return options;
}

void Add(Scheduler& scheduler, uint64_t id) {
  SequenceSpec spec;
  spec.id = SequenceId{id};
  spec.prompt_tokens = kPrompt;
  spec.max_new_tokens = 1000;
  ASSERT_TRUE(scheduler.Add(spec).ok());
}

size_t Step(Scheduler& scheduler) {
  const StepPlan plan = scheduler.Plan(0);
  std::vector<Outcome> outcomes;
  for (const StepItem& item : plan.items) {
    if (item.sample) outcomes.push_back({item.sequence, false});
  }
  scheduler.Commit(plan, outcomes);
  scheduler.CheckInvariants();
  return plan.items.size();
}

/// Eight sequences that decode.
void Decode(Scheduler& scheduler) {
  for (int32_t i = 0; i < kDecoding; ++i) {
    Add(scheduler, static_cast<uint64_t>(i));
    for (int32_t step = 0; step < 4; ++step) Step(scheduler);  // its prompt
  }
  for (int32_t step = 0; step < kSteps; ++step) Step(scheduler);
}

TEST(AdmissionTest, WhatDecodingSequencesHoldIsAllThatANewOneMustLeaveThem) {
  Scheduler wide(Options(1000));
  Decode(wide);
  const int32_t steady = wide.stats().slabs_used;

  const SchedulerOptions options = Options(1000);
  const KvDemand demand = PageStore(options.scheme, options.arena).PeakDemand(kPrompt + 1);
  int32_t needed = steady;
  for (size_t kind = 0; kind < demand.records.size(); ++kind) {
    const int32_t per_slab = options.arena.per_slab[kind];
    if (demand.records[kind] > 0) needed += (demand.records[kind] + per_slab - 1) / per_slab;
  }
  Scheduler narrow(Options(needed));
  Decode(narrow);
  ASSERT_EQ(narrow.stats().running, kDecoding);
  ASSERT_EQ(narrow.stats().slabs_used, steady);
  Add(narrow, kDecoding);
  EXPECT_EQ(Step(narrow), static_cast<size_t>(kDecoding + 1));
}

}  // namespace
}  // namespace asymserve
