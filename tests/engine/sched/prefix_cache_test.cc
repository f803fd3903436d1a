#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "engine/kv/layout.h"
#include "engine/sched/scheduler.h"
#include "tests/engine/sched/default_scheme.h"

// The prefix cache in the size of the default model and its default scheme.

namespace asymserve {
namespace {

constexpr int32_t kChunk = 256;
constexpr int32_t kChunks = 4;
constexpr int32_t kOwners = 8;

SequenceSpec Spec(uint64_t id, uint8_t family, int32_t shared_chunks) {
  SequenceSpec spec;
  spec.id = SequenceId{id};
  spec.prompt_tokens = kChunks * kChunk + 100;
  spec.max_new_tokens = 2500;
  auto chain = std::make_shared<PrefixChain>();
  for (int32_t i = 0; i < kChunks; ++i) {
    PrefixHash hash = {family, static_cast<uint8_t>(i)};
    if (i >= shared_chunks) hash[2] = static_cast<uint8_t>(id);
    chain->chunks.push_back(hash);
  }
  spec.prefix = std::move(chain);
  return spec;
}

void Step(Scheduler& scheduler) {
  const StepPlan plan = scheduler.Plan(0);
  std::vector<Outcome> outcomes;
  for (const StepItem& item : plan.items) {
    if (item.sample) outcomes.push_back({item.sequence, false});
  }
  scheduler.Commit(plan, outcomes);
}

TEST(PrefixCacheTest, EveryPromptIsFoundAfterItsOwnerHasMovedOnByTwoThousandTokens) {
  SchedulerOptions options;
  options.scheme = BalancedScheme();
  ASSERT_TRUE(CheckKvScheme(options.scheme, kDefaultShape).ok());
  options.arena = ArenaCut(KvLayout(kDefaultShape, options.scheme), 192 << 20);
  options.max_context_tokens = 8192;
  options.max_running = 32;
  options.max_waiting = 32;
  options.step_tokens = 512;
  Scheduler scheduler(options);
  uint64_t id = 0;
  for (uint8_t family = 0; family < kOwners; ++family) {
    ASSERT_TRUE(scheduler.Add(Spec(++id, family, kChunks)).ok());
  }
  for (int step = 0; step < 2100; ++step) Step(scheduler);
  ASSERT_EQ(scheduler.stats().running, kOwners);
  ASSERT_EQ(scheduler.stats().cached_tokens, 0u);
  int64_t shareable = 0;
  for (uint8_t family = 0; family < kOwners; ++family) {
    const int32_t chunks = 1 + family % kChunks;
    shareable += chunks * kChunk;
    ASSERT_TRUE(scheduler.Add(Spec(++id, family, chunks)).ok());
  }
  for (int step = 0; step < 40; ++step) Step(scheduler);
  scheduler.CheckInvariants();
  ASSERT_EQ(scheduler.stats().running, 2 * kOwners);
  EXPECT_EQ(scheduler.stats().preemptions, 0u);
  EXPECT_GE(static_cast<double>(scheduler.stats().cached_tokens),
            0.8 * static_cast<double>(shareable));
}

TEST(PrefixCacheTest, AStepThatPlansManyCachedSequencesLeavesTheAccountsInOrder) {
  SchedulerOptions options;
  options.scheme = BalancedScheme();
  options.arena = ArenaCut(KvLayout(kDefaultShape, options.scheme), 24 << 20);
  options.max_context_tokens = 4096;
  options.max_running = 16;
  options.max_waiting = 200;
  options.step_tokens = 512;
  Scheduler scheduler(options);
  for (uint64_t id = 1; id <= 60; ++id) {
    SequenceSpec spec = Spec(id, static_cast<uint8_t>(id % 3), kChunks);
    spec.max_new_tokens = static_cast<int32_t>(1 + id % 7 * 40);
    ASSERT_TRUE(scheduler.Add(spec).ok());
  }
  int64_t steps = 0;
  while (!scheduler.idle() && ++steps < 100'000) {
    Step(scheduler);
    if (steps % 16 == 0) scheduler.CheckInvariants();
  }
  ASSERT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.stats().slabs_used, 0);
  EXPECT_EQ(scheduler.stats().pages_used, 0);
  EXPECT_GT(scheduler.stats().cached_tokens, 2u * kChunks * kChunk);
}

/// Eight prompts of eight pages are cached, the sealed pages of each in eight slabs, and sixteen
/// sequences run that leave no other slab. A ninth prompt is one of the eight: beside its cached
/// pages there is no slab for its newest page, in their place there is.
class ScatteredHitTest : public ::testing::Test {
 protected:
  static constexpr int32_t kPrompts = 8, kPages = 8, kRunners = 16;
  static constexpr int32_t kP = 64, kHit = kPages * kP;

  ScatteredHitTest() : scheduler_(Options()) {
    for (uint8_t prompt = 1; prompt <= kPrompts; ++prompt) Add(Prompt(prompt, prompt, 1));
    while (!scheduler_.idle()) Plan();
    for (uint64_t id = 101; id <= 100 + kRunners; ++id) {
      SequenceSpec spec;
      spec.id = SequenceId{id};
      spec.prompt_tokens = 5;
      spec.max_new_tokens = 50;
      spec.precision = KvPrecision::kExact;
      Add(spec);
    }
    Plan();
    EXPECT_EQ(scheduler_.stats().running, kRunners);
    EXPECT_EQ(scheduler_.stats().slabs_used, kRunners);
    EXPECT_EQ(scheduler_.stats().slabs_cached, kPages);
    Add(Prompt(200, 3, 4));
  }

  static SchedulerOptions Options() {
    SchedulerOptions options;
    options.scheme.page_tokens = kP;
    options.scheme.chunk_tokens = kP;
    options.scheme.items = {KvItem{}};
    options.arena.slab_bytes = 64;
    options.arena.slabs = kRunners + kPages;
    options.arena.per_slab = {1, 8, 0};
    options.max_context_tokens = 1000;
    options.max_running = 32;
    options.max_waiting = 32;
    options.step_tokens = 4096;
    return options;
  }
  static SequenceSpec Prompt(uint64_t id, uint8_t family, int32_t generated) {
    SequenceSpec spec;
    spec.id = SequenceId{id};
    spec.prompt_tokens = kHit + 1;
    spec.max_new_tokens = generated;
    auto chain = std::make_shared<PrefixChain>();
    for (uint8_t i = 0; i < kPages; ++i) chain->chunks.push_back({family, i});
    spec.prefix = std::move(chain);
    return spec;
  }
  void Add(const SequenceSpec& spec) { ASSERT_TRUE(scheduler_.Add(spec).ok()); }
  /// Whether sequence 200 has an item.
  bool Plan() {
    const StepPlan plan = scheduler_.Plan(0);
    bool runs = false;
    std::vector<Outcome> outcomes;
    for (const StepItem& item : plan.items) {
      runs |= item.sequence == SequenceId{200};
      if (item.sample) outcomes.push_back({item.sequence, false});
    }
    scheduler_.Commit(plan, outcomes);
    scheduler_.CheckInvariants();
    return runs;
  }

  Scheduler scheduler_;
};

TEST_F(ScatteredHitTest, HoldsUpTheQueueNoLongerThanComputingItAnewWouldTake) {
  for (int32_t tokens = kRunners; tokens < kHit; tokens += kRunners) ASSERT_FALSE(Plan());
  EXPECT_TRUE(Plan());
  EXPECT_EQ(scheduler_.stats().running, kRunners + 1);
  EXPECT_EQ(scheduler_.stats().cached_tokens, 0u);
}

TEST_F(ScatteredHitTest, IsTakenWhenThereIsRoomBesideItSoonEnough) {
  for (int i = 0; i < 5; ++i) ASSERT_FALSE(Plan());
  scheduler_.Cancel(SequenceId{101});
  scheduler_.Cancel(SequenceId{102});
  EXPECT_TRUE(Plan());
  EXPECT_EQ(scheduler_.stats().running, kRunners - 1);
  EXPECT_EQ(scheduler_.stats().cached_tokens, static_cast<uint64_t>(kHit));
}

}  // namespace
}  // namespace asymserve
