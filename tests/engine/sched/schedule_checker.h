#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <span>
#include <tuple>
#include <vector>

#include "engine/sched/scheduler.h"

// A second, naive account of what a scheduler may do, kept from its calls and answers alone. Every
// On... reports what it saw and fails the test where a rule is broken.

namespace asymserve {

class ScheduleChecker {
 public:
  explicit ScheduleChecker(const SchedulerOptions& options) : options_(options) {}

  void OnAdd(const SequenceSpec& spec) {
    const auto [added, is_new] = live_.try_emplace(spec.id);
    ASSERT_TRUE(is_new);
    added->second.spec = spec;
    added->second.add_number = ++added_;
  }

  void OnCancel(SequenceId id) {
    if (live_.contains(id)) Leave(id);
  }

  void OnPlan(const StepPlan& plan, TimeUs now, const SchedulerStats& stats) {
    const bool none_outstanding = outstanding_.empty();
    for (const SequenceId id : plan.expired) OnExpired(id, now);
    for (const auto& [id, record] : live_) {
      ASSERT_TRUE(record.spec.deadline > now || record.outstanding > 0) << "outlived its deadline";
    }
    const bool work = !live_.empty();
    std::vector<SequenceId> ready = DecodeReady(now);
    OnPreempted(plan);
    OnItems(plan);
    if (none_outstanding) {
      ASSERT_EQ(plan.empty(), !work) << "no progress";
    }
    // Each slab is a record here, and an exact page may take two.
    if (plan.preempted.empty() &&
        stats.slabs_total - stats.slabs_used >= options_.scheme.near_records(KvPrecision::kExact)) {
      for (const SequenceId id : ready) {
        ASSERT_EQ(live_.at(id).last_plan, plan.number) << "a decoding sequence was left out";
      }
    }
    if (!plan.empty()) outstanding_.push_back(plan);
  }

  /// Removes and returns the plan that Commit must be given next.
  StepPlan TakeOldestPlan() {
    StepPlan plan = std::move(outstanding_.front());
    outstanding_.pop_front();
    return plan;
  }
  size_t outstanding() const { return outstanding_.size(); }

  void OnCommit(const StepPlan& plan, std::span<const Outcome> outcomes,
                std::span<const SequenceId> left) {
    std::vector<SequenceId> expected;
    size_t next = 0;
    for (const StepItem& item : plan.items) {
      const bool finished = item.sample && outcomes[next++].finished;
      if (const auto found = retired_.find(item.sequence); found != retired_.end()) {
        if (--found->second.outstanding == 0) retired_.erase(found);
        continue;
      }
      Record& record = live_.at(item.sequence);
      --record.outstanding;
      if (item.sample) ++record.committed;
      if (finished || (item.sample && record.committed == record.spec.max_new_tokens)) {
        expected.push_back(item.sequence);
        if (!finished) ExpectWholeLife(record);
        Leave(item.sequence);
      }
    }
    ASSERT_EQ(std::vector<SequenceId>(left.begin(), left.end()), expected);
  }

  void CheckStats(const SchedulerStats& stats) const {
    int32_t waiting = 0;
    for (const auto& [id, record] : live_) waiting += record.running ? 0 : 1;
    ASSERT_EQ(stats.waiting, waiting);
    ASSERT_EQ(stats.running, static_cast<int32_t>(live_.size()) - waiting);
    ASSERT_LE(stats.running + static_cast<int32_t>(retired_.size()), options_.max_running);
    ASSERT_LE(stats.pages_used, stats.pages_total);
    ASSERT_EQ(stats.preemptions, preemptions_);
    ASSERT_EQ(stats.recomputed_tokens, recomputed_);
    if (live_.empty() && retired_.empty()) {
      ASSERT_EQ(stats.pages_used, 0);
    }
  }

  size_t live() const { return live_.size(); }
  std::vector<SequenceId> live_ids() const {
    std::vector<SequenceId> ids;
    for (const auto& [id, record] : live_) ids.push_back(id);
    return ids;
  }

 private:
  struct Record {
    SequenceSpec spec;
    uint64_t add_number = 0;
    uint64_t age = 0;  // order of first admission
    bool running = false;
    int32_t next = 0;      // token that this life must compute next
    int32_t farthest = 0;  // tokens that some life computed
    int32_t sampled = 0, committed = 0;
    int32_t outstanding = 0;
    uint64_t last_plan = 0;
    std::vector<KvPage> pages;  // as last seen in an item

    int32_t known() const { return spec.prompt_tokens + sampled; }
    auto QueueKey() const {
      return std::tuple(-int64_t{spec.priority}, age == 0, age, age == 0 ? spec.arrival : 0,
                        add_number);
    }
  };

  void Leave(SequenceId id) {
    if (live_.at(id).outstanding > 0) retired_.emplace(id, live_.at(id));
    live_.erase(id);
  }

  void OnExpired(SequenceId id, TimeUs now) {
    ASSERT_TRUE(live_.contains(id));
    ASSERT_LE(live_.at(id).spec.deadline, now);
    ASSERT_EQ(live_.at(id).outstanding, 0);
    live_.erase(id);
  }

  std::vector<SequenceId> DecodeReady(TimeUs now) const {
    std::vector<SequenceId> ready;
    for (const auto& [id, record] : live_) {
      if (record.running && record.sampled > 0 && record.next == record.known() - 1 &&
          record.sampled < record.spec.max_new_tokens && record.spec.deadline > now) {
        ready.push_back(id);
      }
    }
    return ready;
  }

  void OnPreempted(const StepPlan& plan) {
    for (const SequenceId id : plan.preempted) {
      ASSERT_TRUE(live_.contains(id));
      Record& victim = live_.at(id);
      ASSERT_TRUE(victim.running);
      ASSERT_EQ(victim.outstanding, 0) << "preempted under an outstanding plan";
      uint64_t oldest = victim.age;
      for (const auto& [other_id, other] : live_) {
        if (!other.running) continue;
        oldest = std::min(oldest, other.age);
        const bool younger_goes_on = other.age > victim.age && other.outstanding == 0;
        ASSERT_FALSE(younger_goes_on) << "a younger one kept its pages";
      }
      ASSERT_LT(oldest, victim.age) << "the oldest was preempted";
      victim.running = false;
      victim.next = 0;
      victim.pages.clear();
      ++preemptions_;
    }
  }

  void OnItems(const StepPlan& plan) {
    int32_t tokens = 0;
    uint64_t last_age = 0;
    bool prefill_began = false;
    std::set<SequenceId> admitted;
    for (const StepItem& item : plan.items) {
      ASSERT_TRUE(live_.contains(item.sequence));
      Record& record = live_.at(item.sequence);
      ASSERT_NE(record.last_plan, plan.number) << "two items in one plan";
      record.last_plan = plan.number;
      if (!record.running) {
        admitted.insert(item.sequence);
        record.running = true;
      }
      const bool prefill = item.role == StepItem::Role::kPrefill;
      ASSERT_TRUE(prefill || !prefill_began) << "decode items come first";
      if (prefill && !prefill_began) last_age = 0;
      prefill_began = prefill;
      const uint64_t age = record.age == 0 ? UINT64_MAX : record.age;
      ASSERT_TRUE(age == UINT64_MAX || age > last_age) << "not oldest first";
      last_age = age;
      OnItem(item, record);
      tokens += item.count;
    }
    ASSERT_EQ(tokens, plan.tokens);
    ASSERT_LE(tokens, options_.step_tokens);
    OnAdmitted(plan, admitted);
    CheckPagesAreDistinct();
  }

  void OnItem(const StepItem& item, Record& record) {
    ASSERT_GT(item.count, 0);
    ASSERT_EQ(item.begin, record.next) << "a token was skipped or repeated";
    const int32_t end = item.begin + item.count;
    if (item.role == StepItem::Role::kPrefill) {
      CheckPrefill(item, record);
    } else {
      CheckDecode(item, record);
    }
    OnPageTable(item, record);
    recomputed_ += static_cast<uint64_t>(std::max(0, std::min(end, record.farthest) - item.begin));
    record.next = end;
    record.farthest = std::max(record.farthest, end);
    record.sampled += item.sample ? 1 : 0;
    ++record.outstanding;
  }

  void CheckPrefill(const StepItem& item, const Record& record) const {
    const int32_t end = item.begin + item.count;
    const int32_t prompt = record.spec.prompt_tokens;
    ASSERT_LE(end, prompt);
    ASSERT_EQ(item.begin / options_.scheme.chunk_tokens, (end - 1) / options_.scheme.chunk_tokens);
    ASSERT_EQ(item.sample, end == prompt && record.sampled == 0);
  }

  void CheckDecode(const StepItem& item, const Record& record) const {
    const int32_t end = item.begin + item.count;
    ASSERT_GE(item.begin, record.spec.prompt_tokens);
    ASSERT_LE(end, record.known());
    ASSERT_EQ(item.begin / options_.scheme.page_tokens, (end - 1) / options_.scheme.page_tokens);
    ASSERT_EQ(item.sample, end == record.known()) << "exactly the newest token samples";
    ASSERT_TRUE(!item.sample || item.count == 1);
  }

  void OnPageTable(const StepItem& item, Record& record) const {
    const auto pages = static_cast<size_t>(
        (item.begin + item.count + options_.scheme.page_tokens - 1) / options_.scheme.page_tokens);
    ASSERT_EQ(item.pages.size(), pages);
    const auto known = std::span(record.pages).first(std::min(pages, record.pages.size()));
    ASSERT_TRUE(std::equal(known.begin(), known.end(), item.pages.begin()))
        << "a page moved while its sequence ran";
    record.pages.assign(item.pages.begin(), item.pages.end());
    const KvPrecision precision = record.spec.precision;
    for (const KvPage& page : item.pages) {
      ASSERT_EQ(page.exact, precision == KvPrecision::kExact);
      ASSERT_EQ(page.exact_values != kNoPage, options_.scheme.near_records(precision) == 2);
    }
  }

  void OnAdmitted(const StepPlan& plan, const std::set<SequenceId>& admitted) {
    for (const SequenceId id : admitted) {
      for (const auto& [other_id, other] : live_) {
        if (other.running) continue;
        ASSERT_TRUE(live_.at(id).QueueKey() < other.QueueKey()) << "overtook the queue's head";
      }
    }
    if (!plan.preempted.empty()) {
      ASSERT_TRUE(admitted.empty());
    }
    std::vector<SequenceId> first_time;
    for (const SequenceId id : admitted) {
      if (live_.at(id).age == 0) first_time.push_back(id);
    }
    std::sort(first_time.begin(), first_time.end(), [this](SequenceId a, SequenceId b) {
      return live_.at(a).QueueKey() < live_.at(b).QueueKey();
    });
    for (const SequenceId id : first_time) live_.at(id).age = ++ages_;
  }

  void CheckPagesAreDistinct() const {
    std::set<PageId> seen;
    for (const auto* records : {&live_, &retired_}) {
      for (const auto& [id, record] : *records) {
        for (const KvPage& held : record.pages) {
          for (const PageId page : {held.near, held.exact_values}) {
            if (page == kNoPage) continue;
            ASSERT_TRUE(seen.insert(page).second) << "record " << Index(page) << " has two owners";
            ASSERT_LT(Index(page), options_.arena.slabs);
          }
        }
      }
    }
  }

  void ExpectWholeLife(const Record& record) const {
    ASSERT_EQ(record.next, record.spec.prompt_tokens + record.spec.max_new_tokens - 1);
  }

  SchedulerOptions options_;
  std::map<SequenceId, Record> live_;
  std::map<SequenceId, Record> retired_;
  std::deque<StepPlan> outstanding_;
  uint64_t added_ = 0, ages_ = 0, preemptions_ = 0, recomputed_ = 0;
};

}  // namespace asymserve
