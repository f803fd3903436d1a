#include "engine/sched/scheduler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "engine/base/check.h"

// Sequences coming and going. How a step is planned is in scheduler_plan.cc.

namespace asymserve {

Scheduler::Scheduler(const SchedulerOptions& options)
    : options_(options), store_(options.scheme, options.arena), waiting_(options.aging_us) {
  ASYMSERVE_CHECK(options.arena.slabs >= 1);
  ASYMSERVE_CHECK(options.scheme.page_tokens >= 1);
  ASYMSERVE_CHECK(options.scheme.chunk_tokens >= 1);
  ASYMSERVE_CHECK(options.max_context_tokens >= 1);
  ASYMSERVE_CHECK(options.max_running >= 1);
  ASYMSERVE_CHECK(options.max_waiting >= 1);
  ASYMSERVE_CHECK(options.step_tokens >= options.max_running);
  ASYMSERVE_CHECK(options.watermark_pages >= 0);
  ASYMSERVE_CHECK(options.aging_us >= 0 && options.aging_us <= INT64_MAX / 4 / kMaxPriority);
  ASYMSERVE_CHECK(options.bypass_sequences >= 0 && options.bypass_tokens >= 0);
}

Scheduler::~Scheduler() = default;

absl::Status Scheduler::Add(const SequenceSpec& spec) {
  if (spec.prompt_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt_tokens: must be at least 1, got ", spec.prompt_tokens));
  }
  if (spec.max_new_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens: must be at least 1, got ", spec.max_new_tokens));
  }
  const int64_t context = int64_t{spec.prompt_tokens} + spec.max_new_tokens;
  if (context > options_.max_context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_new_tokens: ", spec.prompt_tokens, " prompt and ", spec.max_new_tokens,
        " new tokens are ", context, ", the context holds ", options_.max_context_tokens));
  }
  const int64_t max_tokens = store_.MaxTokens(spec.precision);
  if (context - 1 > max_tokens) {
    const int32_t page_tokens = options_.scheme.page_tokens;
    const bool exact = spec.precision == KvPrecision::kExact;
    return absl::InvalidArgumentError(
        absl::StrCat("max_new_tokens: ", spec.prompt_tokens, " prompt and ", spec.max_new_tokens,
                     " new tokens need ", PagesFor(context - 1, page_tokens), exact ? " exact" : "",
                     " pages, the pool has ", max_tokens / page_tokens));
  }
  if (sequences_.contains(spec.id)) {
    return absl::InvalidArgumentError(
        absl::StrCat("id: sequence ", static_cast<uint64_t>(spec.id), " is already known"));
  }
  if (spec.priority < -kMaxPriority || spec.priority > kMaxPriority) {
    return absl::InvalidArgumentError(absl::StrCat("priority: ", spec.priority, " is not in [",
                                                   -kMaxPriority, ", ", kMaxPriority, "]"));
  }
  if (spec.weight < 1 || spec.weight > kMaxWeight) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight: ", spec.weight, " is not in [1, ", kMaxWeight, "]"));
  }
  if (waiting_.never_ran() >= static_cast<size_t>(options_.max_waiting)) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", waiting_.never_ran(), " sequences wait"));
  }
  auto sequence = std::make_unique<Sequence>(spec, ++added_);
  waiting_.Insert(*sequence);
  if (sequence->expires() != kNoDeadline) deadlines_.emplace(sequence->expires(), spec.id);
  sequences_.emplace(spec.id, std::move(sequence));
  return absl::OkStatus();
}

void Scheduler::Cancel(SequenceId id) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end() || found->second->state == Sequence::State::kRetired) return;
  Leave(*found->second);
}

void Scheduler::Leave(Sequence& sequence) {
  if (sequence.state == Sequence::State::kWaiting) {
    waiting_.Erase(sequence);
  } else {
    const auto position =
        std::lower_bound(running_.begin(), running_.end(), sequence.age,
                         [](const Sequence* running, uint64_t age) { return running->age < age; });
    ASYMSERVE_CHECK(position != running_.end() && *position == &sequence);
    running_.erase(position);
  }
  deadlines_.erase({sequence.expires(), sequence.spec.id});
  store_.Unreserve(sequence.reserve);
  if (sequence.outstanding()) {
    sequence.state = Sequence::State::kRetired;
    ++retired_;
  } else {
    Forget(sequence);
  }
}

void Scheduler::Forget(Sequence& sequence) {
  store_.Release(sequence.pages);
  sequences_.erase(SequenceId{sequence.spec.id});
}

std::vector<SequenceId> Scheduler::Commit(const StepPlan& plan, std::span<const Outcome> outcomes) {
  std::vector<SequenceId> left;
  if (plan.empty()) {
    ASYMSERVE_CHECK(outcomes.empty());
    return left;
  }
  ASYMSERVE_CHECK(!outstanding_.empty() && outstanding_.front().number == plan.number);
  OutstandingPlan committed = std::move(outstanding_.front());
  outstanding_.pop_front();

  size_t next_outcome = 0;
  for (const OutstandingItem& item : committed.items) {
    Sequence& sequence = *item.sequence;
    --sequence.outstanding_plans;
    bool ends = false;
    if (item.sample) {
      ASYMSERVE_CHECK(next_outcome < outcomes.size());
      const Outcome& outcome = outcomes[next_outcome++];
      ASYMSERVE_CHECK(outcome.sequence == sequence.spec.id);
      ++sequence.committed;
      ends = outcome.finished || sequence.committed == sequence.spec.max_new_tokens;
    }
    if (sequence.state == Sequence::State::kRetired) {
      if (sequence.outstanding()) continue;
      --retired_;
      Forget(sequence);
    } else if (ends) {
      left.push_back(sequence.spec.id);
      store_.Unreserve(sequence.reserve);
      PublishTail(sequence);  // others of its request may begin with it
      Leave(sequence);
    }
  }
  ASYMSERVE_CHECK(next_outcome == outcomes.size());
  spare_items_ = std::move(committed.items);
  return left;
}

void Scheduler::DropKept() {
  ASYMSERVE_CHECK(outstanding_.empty());
  store_.DropKept();
}

SchedulerStats Scheduler::stats() const {
  return {.waiting = static_cast<int32_t>(waiting_.size()),
          .running = static_cast<int32_t>(running_.size()),
          .pages_total = store_.pages_total(),
          .pages_used = store_.pages_used(),
          .slabs_total = store_.slabs(),
          .slabs_used = store_.slabs() - store_.idle_slabs(),
          .slabs_cached = store_.idle_slabs() - store_.empty_slabs(),
          .records_used = {store_.used(KvRecord::kNear), store_.used(KvRecord::kBase),
                           store_.used(KvRecord::kRefinement)},
          .preemptions = preemptions_,
          .recomputed_tokens = recomputed_tokens_,
          .unrefined = unrefined_,
          .blocked_plans = blocked_plans_,
          .cached_tokens = cached_tokens_,
          .cache_evictions = store_.prefix_index().evictions()};
}

bool Scheduler::idle() const {
  return sequences_.empty() && outstanding_.empty();
}

TimeUs Scheduler::next_deadline() const {
  return deadlines_.empty() ? kNoDeadline : deadlines_.begin()->first;
}

}  // namespace asymserve
