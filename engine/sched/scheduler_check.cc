#include <array>
#include <iterator>
#include <map>

#include "engine/base/check.h"
#include "engine/sched/scheduler.h"

// What must hold between any two calls.

namespace asymserve {

void Scheduler::CheckInvariants() const {
  CheckLists();
  CheckPages();
  for (const auto& [id, sequence] : sequences_) {
    ASYMSERVE_CHECK(id == sequence->spec.id);
    CheckSequence(*sequence);
  }
}

void Scheduler::CheckLists() const {
  ASYMSERVE_CHECK(outstanding_.size() <= 2);
  ASYMSERVE_CHECK(running_.size() + static_cast<size_t>(retired_) <=
                  static_cast<size_t>(options_.max_running));
  ASYMSERVE_CHECK(waiting_.never_ran() <= static_cast<size_t>(options_.max_waiting));
  for (size_t i = 0; i < running_.size(); ++i) {
    ASYMSERVE_CHECK(running_[i]->state == Sequence::State::kRunning);
    ASYMSERVE_CHECK(i == 0 || running_[i - 1]->age < running_[i]->age);
  }
  waiting_.CheckInvariants();
  ASYMSERVE_CHECK(waiting_.size() + running_.size() + static_cast<size_t>(retired_) ==
                  sequences_.size());
  std::unordered_map<const Sequence*, int32_t> plans;
  for (const OutstandingPlan& plan : outstanding_) {
    ASYMSERVE_CHECK(!plan.items.empty());
    for (const OutstandingItem& item : plan.items) ++plans[item.sequence];
  }
  for (const auto& [sequence, count] : plans) {
    ASYMSERVE_CHECK(sequence->outstanding_plans == count);
  }
}

void Scheduler::CheckPages() const {
  std::array<std::map<PageId, int32_t>, 3> held;  // by KvRecord: how many sequences hold each
  size_t pages = 0;
  KvDemand reserved;
  for (const auto& [id, sequence] : sequences_) {
    pages += sequence->pages.size();
    reserved += sequence->reserve;
    for (const KvPage& page : sequence->pages) {
      const std::array<PageId, 3> records = {page.near, page.base, page.refinement};
      for (size_t k = 0; k < records.size(); ++k) {
        if (records[k] != kNoPage) ++held[k][records[k]];
      }
      if (page.exact_values != kNoPage) ++held[0][page.exact_values];
      const KvPrecision precision = sequence->spec.precision;
      ASYMSERVE_CHECK(page.exact == (precision == KvPrecision::kExact));
      ASYMSERVE_CHECK((page.exact_values != kNoPage) ==
                      (options_.scheme.near_records(precision) == 2));
      const bool near = page.key_tier == KvTier::kNear || page.value_tier == KvTier::kNear;
      const bool sealed = page.key_tier != KvTier::kNear || page.value_tier != KvTier::kNear;
      ASYMSERVE_CHECK(near == (page.near != kNoPage) && sealed == (page.base != kNoPage));
      ASYMSERVE_CHECK(!sealed || options_.scheme.seals(precision));
    }
  }
  for (const KvRecord kind : {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement}) {
    const std::map<PageId, int32_t>& records = held[static_cast<size_t>(kind)];
    ASYMSERVE_CHECK(static_cast<int32_t>(records.size()) == store_.used(kind));
    for (const auto& [record, holders] : records) {
      ASYMSERVE_CHECK(store_.holders(kind, record) == holders);
    }
  }
  ASYMSERVE_CHECK(static_cast<int32_t>(pages) == store_.pages_used());
  ASYMSERVE_CHECK(!sequences_.empty() || store_.empty());
  ASYMSERVE_CHECK(reserved == store_.reserved());
  store_.CheckKept();
}

void Scheduler::CheckProtection(const Sequence& sequence) {
  const bool reserves = sequence.reserve != KvDemand{};
  ASYMSERVE_CHECK(!reserves ||
                  (sequence.state == Sequence::State::kRunning && sequence.is_protected()));
  ASYMSERVE_CHECK(sequence.protected_until == 0 || !sequence.never_ran());
}

void Scheduler::CheckPrepared(const Sequence& sequence) const {
  if (sequence.prepared_until == 0) return;
  const int32_t pages = sequence.prepared_until / options_.scheme.page_tokens;
  ASYMSERVE_CHECK(pages <= std::ssize(sequence.pages));
  ASYMSERVE_CHECK(!Seals(sequence) || sequence.complete == pages - 1);
}

void Scheduler::CheckSequence(const Sequence& sequence) const {
  const SequenceSpec& spec = sequence.spec;
  const bool waits = sequence.state == Sequence::State::kWaiting;
  const bool retired = sequence.state == Sequence::State::kRetired;
  const int64_t capacity =
      static_cast<int64_t>(sequence.pages.size()) * options_.scheme.page_tokens;
  ASYMSERVE_CHECK(sequence.computed <= capacity);
  ASYMSERVE_CHECK(sequence.computed <= sequence.known());
  ASYMSERVE_CHECK(sequence.computed <= sequence.max_stored());
  ASYMSERVE_CHECK(sequence.committed <= sequence.sampled);
  ASYMSERVE_CHECK(sequence.sampled <= spec.max_new_tokens);
  ASYMSERVE_CHECK(sequence.outstanding() || sequence.committed == sequence.sampled);
  ASYMSERVE_CHECK(sequence.outstanding() || sequence.committed < spec.max_new_tokens);
  if (waits) {
    ASYMSERVE_CHECK(sequence.pages.empty() && sequence.computed == 0 && !sequence.outstanding());
    ASYMSERVE_CHECK(waiting_.contains(sequence));
  } else {
    ASYMSERVE_CHECK(!sequence.pages.empty() && !sequence.never_ran());
  }
  CheckProtection(sequence);
  CheckPrepared(sequence);
  ASYMSERVE_CHECK(sequence.overtaken <= options_.bypass_sequences);
  ASYMSERVE_CHECK(sequence.overtaken_tokens <= options_.bypass_tokens);
  ASYMSERVE_CHECK(!retired || sequence.outstanding());
  const bool listed = deadlines_.contains({sequence.expires(), spec.id});
  ASYMSERVE_CHECK(listed == (sequence.expires() != kNoDeadline && !retired));
}

}  // namespace asymserve
