#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/sched/scheduler.h"

namespace asymserve {

/// Short words for schedules written out by hand: pages of 4 tokens, chunks of 8.
class SchedulerFixture : public ::testing::Test {
 protected:
  SchedulerOptions options_{.scheme = {.page_tokens = 4, .chunk_tokens = 8},
                            .arena = ArenaCut::Pages(100),
                            .max_context_tokens = 1000,
                            .max_running = 8,
                            .max_waiting = 16,
                            .step_tokens = 64,
                            .watermark_pages = 0};

  Scheduler& scheduler() {
    if (scheduler_ == nullptr) scheduler_ = std::make_unique<Scheduler>(options_);
    return *scheduler_;
  }

  static SequenceSpec Spec(uint64_t id, int32_t prompt, int32_t generated, int32_t priority = 0) {
    SequenceSpec spec;
    spec.id = SequenceId{id};
    spec.prompt_tokens = prompt;
    spec.max_new_tokens = generated;
    spec.priority = priority;
    return spec;
  }
  void Add(uint64_t id, int32_t prompt, int32_t generated, int32_t priority = 0) {
    const absl::Status status = scheduler().Add(Spec(id, prompt, generated, priority));
    ASSERT_TRUE(status.ok()) << status;
    scheduler().CheckInvariants();
  }
  void Cancel(uint64_t id) {
    scheduler().Cancel(SequenceId{id});
    scheduler().CheckInvariants();
  }
  StepPlan Plan(TimeUs now = 0) {
    StepPlan plan = scheduler().Plan(now);
    scheduler().CheckInvariants();
    return plan;
  }
  /// Commits with the sequences in `finished` ending.
  std::vector<uint64_t> Commit(const StepPlan& plan, const std::vector<uint64_t>& finished = {}) {
    std::vector<Outcome> outcomes;
    for (const StepItem& item : plan.items) {
      if (!item.sample) continue;
      bool ends = false;
      for (const uint64_t id : finished) ends |= item.sequence == SequenceId{id};
      outcomes.push_back({item.sequence, ends});
    }
    const auto left = scheduler().Commit(plan, outcomes);
    scheduler().CheckInvariants();
    return Ids(left);
  }
  StepPlan Step() {
    StepPlan plan = Plan();
    Commit(plan);
    return plan;
  }

  /// The first plan, of 100, that preempts; an empty one if none does.
  StepPlan StepUntilPreemption() {
    for (int i = 0; i < 100; ++i) {
      StepPlan plan = Step();
      if (!plan.preempted.empty()) return plan;
    }
    return {};
  }

  int32_t pages_used() { return scheduler().stats().pages_used; }

  static std::vector<uint64_t> Ids(const std::vector<SequenceId>& sequences) {
    std::vector<uint64_t> ids;
    ids.reserve(sequences.size());
    for (const SequenceId id : sequences) ids.push_back(static_cast<uint64_t>(id));
    return ids;
  }
  /// "1:prefill[0,8) 2:decode[5,6)*": sequence, role and tokens, a star where the item samples.
  static std::string Describe(const StepPlan& plan) {
    std::string text;
    for (const StepItem& item : plan.items) {
      if (!text.empty()) text += ' ';
      text += std::to_string(static_cast<uint64_t>(item.sequence));
      text += item.role == StepItem::Role::kPrefill ? ":prefill[" : ":decode[";
      text += std::to_string(item.begin) + ',' + std::to_string(item.begin + item.count) + ')';
      if (item.sample) text += '*';
    }
    return text;
  }

 private:
  std::unique_ptr<Scheduler> scheduler_;
};

using IdList = std::vector<uint64_t>;

}  // namespace asymserve
