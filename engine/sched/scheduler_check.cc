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
  ASYMSERVE_CHECK(never_ran_ <= options_.max_waiting);
  for (size_t i = 0; i < running_.size(); ++i) {
    ASYMSERVE_CHECK(running_[i]->state == Sequence::State::kRunning);
    ASYMSERVE_CHECK(i == 0 || running_[i - 1]->age < running_[i]->age);
  }
  int32_t never_ran = 0;
  for (const Sequence* sequence : waiting_) {
    ASYMSERVE_CHECK(sequence->state == Sequence::State::kWaiting);
    never_ran += sequence->never_ran() ? 1 : 0;
  }
  ASYMSERVE_CHECK(never_ran == never_ran_);
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
  std::vector<bool> held(static_cast<size_t>(pool_.total()), false);
  int32_t used = 0;
  for (const auto& [id, sequence] : sequences_) {
    for (const PageId page : sequence->pages) {
      ASYMSERVE_CHECK(!held.at(static_cast<size_t>(Index(page))));
      held[static_cast<size_t>(Index(page))] = true;
      ++used;
    }
  }
  ASYMSERVE_CHECK(used == pool_.used());
  ASYMSERVE_CHECK(pool_.used() + pool_.free() == pool_.total());
}

void Scheduler::CheckSequence(const Sequence& sequence) const {
  const SequenceSpec& spec = sequence.spec;
  const bool waits = sequence.state == Sequence::State::kWaiting;
  const bool retired = sequence.state == Sequence::State::kRetired;
  const int64_t capacity = static_cast<int64_t>(sequence.pages.size()) * options_.page_tokens;
  ASYMSERVE_CHECK(sequence.computed <= capacity);
  ASYMSERVE_CHECK(sequence.computed <= sequence.known());
  ASYMSERVE_CHECK(sequence.computed <= sequence.max_stored());
  ASYMSERVE_CHECK(sequence.committed <= sequence.sampled);
  ASYMSERVE_CHECK(sequence.sampled <= spec.max_new_tokens);
  ASYMSERVE_CHECK(sequence.outstanding() || sequence.committed == sequence.sampled);
  ASYMSERVE_CHECK(sequence.outstanding() || sequence.committed < spec.max_new_tokens);
  if (waits) {
    ASYMSERVE_CHECK(sequence.pages.empty() && sequence.computed == 0 && !sequence.outstanding());
    ASYMSERVE_CHECK(waiting_.contains(const_cast<Sequence*>(&sequence)));
  } else {
    ASYMSERVE_CHECK(!sequence.pages.empty() && !sequence.never_ran());
  }
  ASYMSERVE_CHECK(!retired || sequence.outstanding());
  const bool listed = deadlines_.contains({spec.deadline, spec.id});
  ASYMSERVE_CHECK(listed == (spec.deadline != kNoDeadline && !retired));
}

}  // namespace asymserve
