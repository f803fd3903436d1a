#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <vector>

#include "engine/sched/scheduler.h"
#include "engine/sched/shadow.h"
#include "tests/engine/sched/schedule_checker.h"

namespace asymserve {
namespace {

bool Same(const StepPlan& a, const StepPlan& b) {
  if (a.number != b.number || a.tokens != b.tokens || a.items.size() != b.items.size()) {
    return false;
  }
  for (size_t i = 0; i < a.items.size(); ++i) {
    const StepItem& x = a.items[i];
    const StepItem& y = b.items[i];
    if (x.sequence != y.sequence || x.begin != y.begin || x.count != y.count || x.role != y.role ||
        x.sample != y.sample ||
        !std::equal(x.pages.begin(), x.pages.end(), y.pages.begin(), y.pages.end())) {
      return false;
    }
  }
  return a.expired == b.expired && a.preempted == b.preempted;
}

/// One random life of a scheduler and its twin, each call checked. Sequences that ended have
/// shadows in the arena of the first: its plans must be those of the twin, to the page.
class RandomSchedule {
 public:
  explicit RandomSchedule(uint32_t seed) : random_(seed) {
    constexpr int32_t kPageTokens[] = {1, 3, 7, 16};
    options_.scheme.page_tokens = kPageTokens[Below(4)];
    if (Below(2) == 0) options_.scheme.near = KvCodec::kInt8;
    exact_percent_ = Below(3) * 30;
    options_.arena = ArenaCut::Pages(2 + Below(40));
    options_.scheme.chunk_tokens = 1 + Below(30);
    options_.max_context_tokens = 1 + Below(200);
    options_.max_running = 1 + Below(10);
    options_.max_waiting = 1 + Below(12);
    options_.step_tokens = options_.max_running + Below(40);
    options_.watermark_pages = Below(4);
    options_.aging_us = Below(8);
    options_.bypass_sequences = Below(4);
    options_.bypass_tokens = Below(4) * 60;
    for (int32_t& weight : weights_) weight = 1 + Below(5);
    tenants_ = 1 + Below(static_cast<int32_t>(weights_.size()));
    runs_ahead_ = Below(2) == 0;
    has_deadlines_ = Below(2) == 0;
    finish_percent_ = Below(3) * 5;
    first_ = std::make_unique<Scheduler>(options_);
    second_ = std::make_unique<Scheduler>(options_);
    checker_ = std::make_unique<ScheduleChecker>(options_);
  }

  void Run(int calls) {
    for (int call = 0; call < calls && !::testing::Test::HasFatalFailure(); ++call) {
      const int32_t choice = Below(100);
      if (choice < 30) {
        Add();
      } else if (choice < 34) {
        Cancel();
      } else if (checker_->outstanding() == (runs_ahead_ ? 2u : 1u) ||
                 (checker_->outstanding() > 0 && choice < 67)) {
        Commit();
      } else {
        Plan();
      }
      Check();
    }
  }

  /// No more arrivals: everything ends, and every page is free again.
  void Drain() {
    int64_t left = 100'000;
    while (!first_->idle() && left-- > 0 && !::testing::Test::HasFatalFailure()) {
      const size_t depth = runs_ahead_ ? 2 : 1;
      while (checker_->outstanding() < depth && checker_->live() > 0) {
        const bool empty = Plan();
        Check();
        if (empty) break;
      }
      if (checker_->outstanding() > 0) Commit();
      Check();
    }
    ASSERT_TRUE(first_->idle());
    ASSERT_EQ(first_->stats().pages_used, 0);
    ASSERT_EQ(first_->next_deadline(), kNoDeadline);
    ASSERT_EQ(checker_->live(), 0u);
  }

  uint64_t preemptions() const { return first_->stats().preemptions; }
  uint64_t refused() const { return refused_; }
  uint64_t expired() const { return expired_; }
  uint64_t overtakings() const { return checker_->overtakings(); }
  uint64_t shadows_done() const { return shadows_done_; }
  uint64_t shadows_displaced() const { return shadows_displaced_; }

 private:
  int32_t Below(int32_t n) { return static_cast<int32_t>(random_() % static_cast<uint32_t>(n)); }

  void Add() {
    SequenceSpec spec;
    spec.id = SequenceId{Below(20) == 0 ? 1 : ++next_id_};
    spec.prompt_tokens = Below(60);  // 0 is refused
    spec.max_new_tokens = Below(50);
    spec.priority = Below(4) == 0 ? Below(5) - 2 : 0;
    spec.tenant = Below(tenants_);
    spec.weight = weights_[static_cast<size_t>(spec.tenant)];
    spec.arrival = now_ - Below(3);
    if (has_deadlines_ && Below(4) == 0) spec.deadline = now_ + Below(60);
    if (has_deadlines_ && Below(4) == 0) spec.queue_deadline = now_ + Below(30);
    if (Below(100) < exact_percent_) spec.precision = KvPrecision::kExact;
    const SchedulerStats before = first_->stats();
    const absl::Status status = first_->Add(spec);
    ASSERT_EQ(status, second_->Add(spec));
    if (status.ok()) {
      checker_->OnAdd(spec);
    } else {
      ++refused_;
      ASSERT_EQ(first_->stats().waiting, before.waiting);
    }
  }

  void Cancel() {
    const SequenceId id{1 + static_cast<uint64_t>(Below(static_cast<int32_t>(next_id_) + 2))};
    first_->Cancel(id);
    second_->Cancel(id);
    checker_->OnCancel(id);
  }

  bool Plan() {
    now_ += Below(4);
    const int32_t catch_up_tokens = Below(3) == 0 ? INT32_MAX : 1 + Below(40);
    const StepPlan plan = first_->Plan(now_, catch_up_tokens);
    const StepPlan twin = second_->Plan(now_, catch_up_tokens);
    EXPECT_TRUE(Same(plan, twin)) << "equal calls gave different plans";
    PlanShadow(plan);
    expired_ += plan.expired.size();
    checker_->OnPlan(plan, now_, first_->stats(), catch_up_tokens);
    return plan.empty();
  }

  /// With no choice of `random_`, which would be the twin's, too.
  void BeginShadow() {
    if (shadow_ != nullptr) return;
    const auto tokens = static_cast<int32_t>(2 + now_ % 40);
    shadow_ = Shadow::Begin(
        {.prompt_tokens = tokens - 1 - static_cast<int32_t>(now_) % (tokens - 1), .tokens = tokens},
        options_.scheme, options_.arena, first_->arena());
  }

  /// Its records are in slabs where nobody of the plan has any.
  void PlanShadow(const StepPlan& plan) {
    if (shadow_ == nullptr) return;
    if (!shadow_->HasRecords(first_->arena())) {
      ++shadows_displaced_;
      shadow_.reset();
      return;
    }
    const auto step = shadow_->Plan(8, 6);
    ASSERT_TRUE(step.has_value());
    std::set<PageId> records;
    for (const auto* pages : {&step->scheme_pages, &step->exact_pages}) {
      for (const KvPage& page : *pages) {
        ASSERT_TRUE(records.insert(page.near).second);
        if (page.exact_values == kNoPage) continue;
        ASSERT_TRUE(records.insert(page.exact_values).second);
      }
    }
    for (const StepItem& item : plan.items) {
      for (const KvPage& page : item.pages) {
        ASSERT_FALSE(records.contains(page.near)) << "a shadow writes over a sequence";
        ASSERT_FALSE(page.exact_values != kNoPage && records.contains(page.exact_values));
      }
    }
    if (!shadow_->done()) return;
    ++shadows_done_;
    shadow_.reset();
  }

  void Commit() {
    const StepPlan plan = checker_->TakeOldestPlan();
    std::vector<Outcome> outcomes;
    for (const StepItem& item : plan.items) {
      if (item.sample) outcomes.push_back({item.sequence, Below(100) < finish_percent_});
    }
    const std::vector<SequenceId> left = first_->Commit(plan, outcomes);
    ASSERT_EQ(left, second_->Commit(plan, outcomes));
    checker_->OnCommit(plan, outcomes, left);
    if (!left.empty()) BeginShadow();
  }

  void Check() {
    first_->CheckInvariants();
    checker_->CheckStats(first_->stats());
  }

  std::mt19937 random_;
  SchedulerOptions options_;
  bool runs_ahead_ = false, has_deadlines_ = false;
  int32_t finish_percent_ = 0, exact_percent_ = 0, tenants_ = 1;
  std::array<int32_t, 4> weights_ = {};
  std::unique_ptr<Scheduler> first_, second_;
  std::unique_ptr<ScheduleChecker> checker_;
  TimeUs now_ = 0;
  uint64_t next_id_ = 0, refused_ = 0, expired_ = 0;
  std::unique_ptr<Shadow> shadow_;
  uint64_t shadows_done_ = 0, shadows_displaced_ = 0;
};

constexpr uint32_t kParts = 5, kSchedules = 2'000, kCalls = 100;
static_assert(kParts * kSchedules * kCalls == 1'000'000);

class SchedulerPropertyTest : public ::testing::TestWithParam<uint32_t> {};

TEST_P(SchedulerPropertyTest, EveryRuleHoldsAfterEveryCallOfRandomSchedules) {
  uint64_t preemptions = 0, refused = 0, expired = 0, overtakings = 0;
  uint64_t shadows_done = 0, shadows_displaced = 0;
  for (uint32_t i = 1; i <= kSchedules; ++i) {
    const uint32_t seed = GetParam() * kSchedules + i;
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    RandomSchedule schedule(seed);
    schedule.Run(kCalls);
    ASSERT_FALSE(HasFatalFailure());
    schedule.Drain();
    ASSERT_FALSE(HasFatalFailure());
    preemptions += schedule.preemptions();
    refused += schedule.refused();
    expired += schedule.expired();
    overtakings += schedule.overtakings();
    shadows_done += schedule.shadows_done();
    shadows_displaced += schedule.shadows_displaced();
  }
  // The schedules reach what they are meant to test.
  EXPECT_GT(preemptions, 500u);
  EXPECT_GT(refused, 1000u);
  EXPECT_GT(expired, 1000u);
  EXPECT_GT(overtakings, 500u);
  EXPECT_GT(shadows_done, 500u);
  EXPECT_GT(shadows_displaced, 500u);
}

INSTANTIATE_TEST_SUITE_P(Part, SchedulerPropertyTest, ::testing::Range(0u, kParts));

/// Plans and commits until nothing is left or `limit` steps are over; the step that ended each
/// sequence.
std::map<SequenceId, int64_t> StepsToEnd(Scheduler& scheduler, bool runs_ahead, int64_t limit) {
  std::map<SequenceId, int64_t> ended;
  std::vector<StepPlan> outstanding;
  for (int64_t step = 1; step <= limit && !scheduler.idle(); ++step) {
    StepPlan plan = scheduler.Plan(0);
    const bool ahead = runs_ahead && outstanding.empty() && !plan.empty();
    if (!plan.empty()) outstanding.push_back(std::move(plan));
    if (outstanding.empty() || ahead) continue;
    std::vector<Outcome> outcomes;
    for (const StepItem& item : outstanding.front().items) {
      if (item.sample) outcomes.push_back({item.sequence, false});
    }
    for (const SequenceId id : scheduler.Commit(outstanding.front(), outcomes)) ended[id] = step;
    outstanding.erase(outstanding.begin());
  }
  return ended;
}

/// What sequences that run to their end may cost beyond their own tokens, known before any of them
/// runs (engine/README.md, "Who is preempted"): a sequence of N new tokens is preempted at most 1 +
/// N / page_tokens times, and each time computes again no more than it will ever have.
struct MostWaste {
  int64_t preemptions = 0, recomputed_tokens = 0;

  void Allow(const SequenceSpec& spec, int32_t page_tokens) {
    const int64_t times = 1 + spec.max_new_tokens / page_tokens;
    preemptions += times;
    recomputed_tokens += times * (spec.prompt_tokens + spec.max_new_tokens);
  }
};

// The oldest sequence of all computes at least one token in every step until it ends: its P prompt
// tokens, N generated ones and, if it was preempted before it was the oldest, a replay of up to N.
// So of sequences of equal priority the k-th ends within the sum of P + 2N steps over the first k.
// Those that overtake a head add their P + 2N to it: at most twice the tokens that the options
// allow for each head. It may wait for pages while others are protected, after a preemption: in
// such a step one of those computes a token again, or one of a page of new ones. How many those may
// be is known beforehand, too: no run raises its own bound. With a plan ahead of the commits it may
// wait one step for each that it takes: for a page that an outstanding plan holds, or for its own
// last commit.
class StarvationTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr uint64_t kSequences = 40;

  static SchedulerOptions DrawOptions(std::mt19937& random) {
    SchedulerOptions options;
    options.scheme.page_tokens = 1 + static_cast<int32_t>(random() % 6);
    options.arena = ArenaCut::Pages(60 / options.scheme.page_tokens + 1);
    options.scheme.chunk_tokens = 16;
    options.max_context_tokens = 60;
    options.max_running = 1 + static_cast<int32_t>(random() % 8);
    options.max_waiting = static_cast<int32_t>(kSequences);
    options.step_tokens = options.max_running + static_cast<int32_t>(random() % 8);
    options.bypass_sequences = static_cast<int32_t>(random() % 4);
    options.bypass_tokens = options.bypass_sequences == 0 ? 0 : 30;
    return options;
  }
  static SequenceSpec DrawSequence(uint64_t id, std::mt19937& random) {
    SequenceSpec spec;
    spec.id = SequenceId{id};
    spec.prompt_tokens = 1 + static_cast<int32_t>(random() % 25);
    spec.max_new_tokens = 1 + static_cast<int32_t>(random() % 30);
    return spec;
  }
  static int64_t StepsOf(const SequenceSpec& spec) {
    return spec.prompt_tokens + int64_t{2} * spec.max_new_tokens;
  }

  /// All of them come at once. `bounds`: the steps within which each is to end while nobody waits
  /// for pages, in lock step. Returns how many were later than that.
  int64_t ExpectEnds(const SchedulerOptions& options, const std::vector<SequenceSpec>& specs,
                     const std::map<SequenceId, int64_t>& bounds) {
    const int64_t factor = GetParam() ? 2 : 1;
    Scheduler scheduler(options);
    MostWaste most;
    int64_t last = 0;
    for (const SequenceSpec& spec : specs) {
      EXPECT_TRUE(scheduler.Add(spec).ok());
      most.Allow(spec, options.scheme.page_tokens);
      last = std::max(last, factor * bounds.at(spec.id));
    }
    const auto ended = StepsToEnd(scheduler, /*runs_ahead=*/GetParam(), 2 * last);
    EXPECT_EQ(ended.size(), specs.size());
    EXPECT_TRUE(scheduler.idle());
    const SchedulerStats stats = scheduler.stats();
    EXPECT_EQ(stats.pages_used, 0);
    const auto preemptions = static_cast<int64_t>(stats.preemptions);
    const auto recomputed = static_cast<int64_t>(stats.recomputed_tokens);
    EXPECT_LE(preemptions, most.preemptions);
    EXPECT_LE(recomputed, most.recomputed_tokens);
    const int64_t waited = recomputed + preemptions * options.scheme.page_tokens;
    int64_t late = 0;
    for (const auto& [id, step] : ended) {
      const int64_t bound = factor * bounds.at(id);
      EXPECT_LE(step, bound + factor * waited) << "sequence " << static_cast<uint64_t>(id);
      late += step > bound ? 1 : 0;
    }
    preemptions_ += stats.preemptions;
    return late;
  }

  uint64_t preemptions_ = 0;  // of all that ended
};

TEST_P(StarvationTest, TheKthSequenceEndsWithinTheStepsOfTheFirstK) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const SchedulerOptions options = DrawOptions(random);
    std::vector<SequenceSpec> specs;
    std::map<SequenceId, int64_t> bounds;
    int64_t bound = 0;
    for (uint64_t id = 1; id <= kSequences; ++id) {
      specs.push_back(DrawSequence(id, random));
      bound += StepsOf(specs.back()) + 2 * options.bypass_tokens;
      bounds[specs.back().id] = bound;
    }
    EXPECT_LE(ExpectEnds(options, specs, bounds), 2);
  }
  EXPECT_GT(preemptions_, 100u);
}

/// When the turn of each comes that waits from the beginning, by the book of start-time fair
/// queuing in tokens / 2^16: at what its tenant was admitted for before it, over the tenant's
/// weight. Within a tenant by priority, then as they came.
std::map<SequenceId, uint64_t> TurnsOf(std::vector<SequenceSpec> specs) {
  std::stable_sort(specs.begin(), specs.end(), [](const SequenceSpec& a, const SequenceSpec& b) {
    return a.priority > b.priority;
  });
  std::map<SequenceId, uint64_t> turns;
  std::map<int32_t, uint64_t> next;
  for (const SequenceSpec& spec : specs) {
    const auto tokens = static_cast<uint64_t>(spec.prompt_tokens + spec.max_new_tokens);
    turns[spec.id] = next[spec.tenant];
    next[spec.tenant] += (tokens << 16) / static_cast<uint64_t>(spec.weight);
  }
  return turns;
}

// Between tenants the first k are those whose turn comes no later: however many one of them sends,
// and at whatever priority, what the others wait for is its share by weight. Nobody overtakes a
// head here, for that moves the turns behind it.
TEST_P(StarvationTest, AmongTenantsASequenceEndsWithinTheStepsOfThoseWhoseTurnIsNoLater) {
  for (uint32_t seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    SchedulerOptions options = DrawOptions(random);
    options.bypass_sequences = 0;
    options.bypass_tokens = 0;
    std::array<int32_t, 3> weights = {};
    for (int32_t& weight : weights) weight = 1 + static_cast<int32_t>(random() % 5);
    std::vector<SequenceSpec> specs;
    for (uint64_t id = 1; id <= kSequences; ++id) {
      SequenceSpec spec = DrawSequence(id, random);
      spec.tenant =
          static_cast<int32_t>(std::max<uint64_t>(random() % 6, 3) - 3);  // 0: four of six
      spec.weight = weights.at(static_cast<size_t>(spec.tenant));
      spec.priority = static_cast<int32_t>(random() % 5) - 2;
      specs.push_back(spec);
    }
    const std::map<SequenceId, uint64_t> turns = TurnsOf(specs);
    std::map<SequenceId, int64_t> bounds;
    for (const SequenceSpec& spec : specs) {
      for (const SequenceSpec& other : specs) {
        if (turns.at(other.id) <= turns.at(spec.id)) bounds[spec.id] += StepsOf(other);
      }
    }
    ExpectEnds(options, specs, bounds);
  }
  EXPECT_GT(preemptions_, 50u);
}

INSTANTIATE_TEST_SUITE_P(Depth, StarvationTest, ::testing::Bool(), [](const auto& param_info) {
  return param_info.param ? "OnePlanAhead" : "InLockStep";
});

}  // namespace
}  // namespace asymserve
