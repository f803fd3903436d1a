#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/sched/scheduler.h"

// A second, naive account of what a scheduler may do, kept from its calls and answers alone. Every
// On... reports what it saw and fails the test where a rule is broken.

namespace asymserve {

/// Start-time fair queuing by the book, in tokens / 2^16: a start for every tenant ever seen.
class TenantTurns {
 public:
  /// `tenants`: who waits now.
  void OnQueue(const std::set<int32_t>& tenants) {
    if (tenants.empty()) {
      starts_.clear();
      deferred_.clear();
      last_turn_ = 0;
    }
    for (const int32_t tenant : waits_) {
      if (!tenants.contains(tenant)) starts_[tenant] += std::exchange(deferred_[tenant], 0);
    }
    if (tenants.empty()) starts_.clear();
    for (const int32_t tenant : tenants) {
      if (!waits_.contains(tenant)) starts_[tenant] = std::max(starts_[tenant], last_turn_);
    }
    waits_ = tenants;
  }
  void OnAdmission(const SequenceSpec& spec, int32_t head_tenant, bool is_head) {
    const uint64_t tokens =
        static_cast<uint64_t>(spec.prompt_tokens) + static_cast<uint64_t>(spec.max_new_tokens);
    const uint64_t charge = (tokens << 16) / static_cast<uint64_t>(spec.weight);
    if (spec.tenant == head_tenant && !is_head) {
      deferred_[spec.tenant] += charge;
      return;
    }
    if (is_head) last_turn_ = starts_[spec.tenant];
    starts_[spec.tenant] += charge + std::exchange(deferred_[spec.tenant], 0);
  }
  uint64_t Start(int32_t tenant) const { return starts_.at(tenant); }

 private:
  std::map<int32_t, uint64_t> starts_, deferred_;
  std::set<int32_t> waits_;
  uint64_t last_turn_ = 0;
};

class ScheduleChecker {
 public:
  explicit ScheduleChecker(const SchedulerOptions& options) : options_(options) {}

  void OnAdd(const SequenceSpec& spec) {
    const auto [added, is_new] = live_.try_emplace(spec.id);
    ASSERT_TRUE(is_new);
    added->second.spec = spec;
    added->second.add_number = ++added_;
    turns_.OnQueue(NeverRan());
  }

  void OnCancel(SequenceId id) {
    if (live_.contains(id)) Leave(id);
    turns_.OnQueue(NeverRan());
  }

  /// `catch_up_tokens`: those that Plan was given.
  void OnPlan(const StepPlan& plan, TimeUs now, const SchedulerStats& stats,
              int32_t catch_up_tokens) {
    const bool none_outstanding = outstanding_.empty();
    for (const SequenceId id : plan.expired) {
      OnExpired(id, now);
      turns_.OnQueue(NeverRan());
    }
    for (const auto& [id, record] : live_) {
      ASSERT_TRUE(record.spec.deadline > now || record.outstanding > 0) << "outlived its deadline";
      ASSERT_TRUE(record.age > 0 || record.spec.queue_deadline > now) << "waited too long";
    }
    const bool work = !live_.empty();
    std::vector<SequenceId> ready = DecodeReady(now);
    OnPreempted(plan);
    OnItems(plan);
    if (!ready.empty()) {
      int32_t catch_up = 0;
      for (const StepItem& item : plan.items) {
        catch_up += std::count(ready.begin(), ready.end(), item.sequence) == 0 ? item.count : 0;
      }
      ASSERT_LE(catch_up, catch_up_tokens) << "those that catch up hold up those that decode";
    }
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

  uint64_t overtakings() const { return overtakings_; }
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
    int32_t overtaken = 0;
    int64_t overtaken_tokens = 0;
    int32_t next = 0;      // token that this life must compute next
    int32_t farthest = 0;  // tokens that some life computed
    int32_t protected_until = 0;
    int32_t preemptions = 0, recomputed = 0;
    int32_t sampled = 0, committed = 0;
    int32_t outstanding = 0;
    uint64_t last_plan = 0;
    std::vector<KvPage> pages;  // as last seen in an item

    int32_t known() const { return spec.prompt_tokens + sampled; }
    int32_t max_stored() const { return spec.prompt_tokens + spec.max_new_tokens - 1; }
    bool is_protected() const { return next < protected_until; }
    int64_t cost() const { return int64_t{spec.prompt_tokens} + spec.max_new_tokens; }
  };

  void Leave(SequenceId id) {
    if (live_.at(id).outstanding > 0) retired_.emplace(id, live_.at(id));
    live_.erase(id);
  }

  void OnExpired(SequenceId id, TimeUs now) {
    ASSERT_TRUE(live_.contains(id));
    const Record& record = live_.at(id);
    ASSERT_TRUE(record.spec.deadline <= now ||
                (record.age == 0 && record.spec.queue_deadline <= now));
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
      ASSERT_FALSE(victim.is_protected()) << "preempted again before it progressed by a page";
      uint64_t oldest = victim.age;
      for (const auto& [other_id, other] : live_) {
        if (!other.running) continue;
        oldest = std::min(oldest, other.age);
        const bool younger_goes_on =
            other.age > victim.age && other.outstanding == 0 && !other.is_protected();
        ASSERT_FALSE(younger_goes_on) << "a younger one kept its pages";
      }
      ASSERT_LT(oldest, victim.age) << "the oldest was preempted";
      victim.running = false;
      victim.protected_until =
          std::min(victim.known() + options_.scheme.page_tokens, victim.max_stored());
      ++victim.preemptions;
      victim.next = 0;
      victim.pages.clear();
      ++preemptions_;
    }
  }

  void OnItems(const StepPlan& plan) {
    int32_t tokens = 0;
    uint64_t last_age = 0;
    bool prefill_began = false;
    std::vector<SequenceId> admitted;
    for (const StepItem& item : plan.items) {
      ASSERT_TRUE(live_.contains(item.sequence));
      Record& record = live_.at(item.sequence);
      ASSERT_NE(record.last_plan, plan.number) << "two items in one plan";
      record.last_plan = plan.number;
      if (!record.running) {
        admitted.push_back(item.sequence);
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
    const int32_t again = std::max(0, std::min(end, record.farthest) - item.begin);
    record.recomputed += again;
    recomputed_ += static_cast<uint64_t>(again);
    ASSERT_LE(record.recomputed, MostRecomputed(record)) << "more waste than is promised";
    record.next = end;
    record.farthest = std::max(record.farthest, end);
    record.sampled += item.sample ? 1 : 0;
    ++record.outstanding;
  }

  /// Between two preemptions a sequence computes a page of new tokens, and each costs no more than
  /// it has computed by then.
  int32_t MostRecomputed(const Record& record) const {
    const int32_t preemptions = 1 + record.sampled / options_.scheme.page_tokens;
    EXPECT_LE(record.preemptions, preemptions) << "preempted too often";
    return preemptions * record.known();
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

  /// `admitted` as the items have them, by age: those that come back, then first-timers in the
  /// order of their admission.
  void OnAdmitted(const StepPlan& plan, const std::vector<SequenceId>& admitted) {
    if (!plan.preempted.empty()) {
      ASSERT_TRUE(admitted.empty());
    }
    for (const SequenceId id : admitted) {
      const SequenceId head = Head();
      Record& record = live_.at(id);
      if (record.age == 0) {
        if (id != head) OnOvertaking(record, live_.at(head));
        turns_.OnAdmission(record.spec, live_.at(head).spec.tenant, id == head);
        record.age = ++ages_;
      } else {
        ASSERT_EQ(id, head) << "came back before its turn";
      }
      record.running = true;
      turns_.OnQueue(NeverRan());
    }
  }

  /// The sequence whose turn it is.
  SequenceId Head() const {
    SequenceId head{};
    std::optional<std::tuple<uint64_t, uint64_t, int32_t, TimeUs, uint64_t>> first;
    for (const auto& [id, record] : live_) {
      if (record.running) continue;
      const SequenceSpec& spec = record.spec;
      const TimeUs key = spec.arrival - spec.priority * options_.aging_us;
      const uint64_t never_ran = record.age == 0 ? 1 : 0;
      const auto place = never_ran == 0
                             ? std::tuple(never_ran, record.age, 0, TimeUs{0}, uint64_t{0})
                             : std::tuple(never_ran, turns_.Start(spec.tenant), spec.tenant, key,
                                          record.add_number);
      if (!first || place < *first) {
        first = place;
        head = id;
      }
    }
    return head;
  }

  void OnOvertaking(const Record& record, Record& head) {
    ASSERT_EQ(head.age, 0u) << "overtook a preempted sequence";
    ++overtakings_;
    ++head.overtaken;
    head.overtaken_tokens += record.cost();
    ASSERT_LE(head.overtaken, options_.bypass_sequences);
    ASSERT_LE(head.overtaken_tokens, options_.bypass_tokens);
    ASSERT_TRUE(record.spec.prompt_tokens < head.spec.prompt_tokens ||
                record.cost() < head.cost() || record.spec.precision != head.spec.precision)
        << "overtook, and is not smaller";
  }

  std::set<int32_t> NeverRan() const {
    std::set<int32_t> tenants;
    for (const auto& [id, record] : live_) {
      if (!record.running && record.age == 0) tenants.insert(record.spec.tenant);
    }
    return tenants;
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
  TenantTurns turns_;
  uint64_t overtakings_ = 0, added_ = 0, ages_ = 0, preemptions_ = 0, recomputed_ = 0;
};

}  // namespace asymserve
