#include <algorithm>

#include "engine/base/check.h"
#include "engine/sched/scheduler.h"

// How one step is planned. Running sequences come first, oldest to youngest: one token for each
// that decodes, and what the budget leaves for those that catch up (prefill, or replay after a
// preemption). Then the queue, head first; who overtakes a head that finds no room is counted, so
// nobody starves behind smaller requests. A sequence is admitted when there is room for everything
// it must catch up on: an exact one takes its pages at once, one whose pages are sealed takes them
// chunk by chunk, for it needs less when the next chunk begins. Afterwards it grows page by page.

namespace asymserve {

struct Scheduler::Draft {
  TimeUs now = 0;
  int32_t step_tokens = 0;            // of this plan at most
  int32_t catch_up_tokens = 0;        // as Plan was given them
  int32_t catch_up_left = INT32_MAX;  // of them, if some sequence decodes
  StepPlan plan;
  int32_t decode_left = 0;  // running sequences still to visit that may decode one token
  /// Left out of this plan, so that the next one may preempt it.
  const Sequence* held_back = nullptr;
  /// Running sequences at this index and after are in the outstanding plan: no victims.
  size_t victims_end = 0;
  bool out_of_pages = false;

  int32_t CatchUpBudget() const {
    return std::min(step_tokens - plan.tokens - decode_left, catch_up_left);
  }
};

StepPlan Scheduler::Plan(TimeUs now, int32_t catch_up_tokens) {
  ASYMSERVE_CHECK(outstanding_.size() <= 1 && catch_up_tokens >= 1);
  Draft draft;
  draft.now = now;
  draft.catch_up_tokens = catch_up_tokens;
  draft.plan.number = ++planned_;
  Expire(now, draft.plan);
  PlanRunning(draft);
  // Pages that a preemption just freed are for the running sequences, not for newcomers; taking the
  // victim back in the plan that preempted it would lead nowhere.
  if (!draft.out_of_pages) {
    Admit(draft);
  } else if (!waiting_.empty()) {
    ++blocked_plans_;
  }
  store_.EndPlan();
  RecordItems(draft);
  return std::move(draft.plan);
}

void Scheduler::RecordItems(Draft& draft) {
  if (decode_.empty() && prefill_.empty()) return;
  // A sequence that came back may be older than ones that were running, and begin with a replay.
  const auto older = [](const auto& a, const auto& b) { return a.sequence->age < b.sequence->age; };
  for (auto* entries : {&decode_, &prefill_}) {
    if (std::is_sorted(entries->begin(), entries->end(), older)) continue;
    std::sort(entries->begin(), entries->end(), older);
  }
  OutstandingPlan outstanding{.number = draft.plan.number, .items = std::move(spare_items_)};
  outstanding.items.clear();
  const size_t count = decode_.size() + prefill_.size();
  outstanding.items.reserve(count);
  draft.plan.items.reserve(count);
  for (auto* entries : {&decode_, &prefill_}) {
    for (const DraftItem& entry : *entries) {
      draft.plan.items.push_back(entry.item);
      outstanding.items.push_back({entry.sequence, entry.item.sample});
    }
    entries->clear();
  }
  outstanding_.push_back(std::move(outstanding));
}

void Scheduler::Expire(TimeUs now, StepPlan& plan) {
  for (auto next = deadlines_.begin(); next != deadlines_.end() && next->first <= now;) {
    Sequence& sequence = *sequences_.at((next++)->second);  // before Leave erases its entry
    if (sequence.outstanding()) continue;
    plan.expired.push_back(sequence.spec.id);
    Leave(sequence);
  }
}

void Scheduler::PlanRunning(Draft& draft) {
  // Whoever is planned keeps the pages that it has: what is needed now is freed before.
  while (options_.elastic && !store_.Fits(Growth(1)) && FreeRefinements(0)) {
  }
  for (const Sequence* sequence : running_) draft.decode_left += sequence->decode_ready() ? 1 : 0;
  draft.step_tokens = options_.step_tokens;
  if (draft.decode_left > 0) draft.catch_up_left = draft.catch_up_tokens;
  draft.victims_end = running_.size();
  for (size_t index = 0; index < running_.size(); ++index) {
    Sequence& sequence = *running_[index];
    const bool decodes = sequence.decode_ready();
    if (decodes) --draft.decode_left;
    if (sequence.fully_planned() || &sequence == draft.held_back ||
        sequence.spec.deadline <= draft.now) {
      continue;
    }
    if (decodes) {
      PlanDecode(index, draft);
    } else {
      PlanCatchUp(index, draft);
    }
  }
}

bool Scheduler::Prepare(Sequence& sequence, int32_t count, Draft& draft) {
  const KvScheme& scheme = options_.scheme;
  const int32_t begin = sequence.computed;
  const int64_t tokens = int64_t{begin} + count;
  const bool prefill = begin < sequence.spec.prompt_tokens;
  const int32_t chunk_start = begin / scheme.chunk_tokens * scheme.chunk_tokens;
  const int32_t complete = (prefill ? chunk_start : begin) / scheme.page_tokens;
  const auto held = static_cast<int64_t>(sequence.pages.size()) * scheme.page_tokens;
  PublishTail(sequence);
  if (begin == sequence.unrefined_from) store_.FreeRefinements(sequence.pages);
  if (tokens > held || (Seals(sequence) && complete != sequence.complete)) {
    if (!store_.Prepare(sequence.pages, tokens, complete, draft.plan.seals, sequence.precision(),
                        sequence.is_protected() ? &sequence.reserve : nullptr)) {
      return false;
    }
    sequence.complete = complete;
  }
  PublishChunks(sequence);
  return true;
}

/// When whole chunks of the prompt lie behind a sequence that was just prepared to go on.
void Scheduler::PublishChunks(Sequence& sequence) {
  const int32_t tokens = sequence.computed;
  const int32_t chunk = options_.scheme.chunk_tokens;
  const PrefixChain* chain = sequence.spec.prefix.get();
  if (!sequence.shares || chain == nullptr || tokens == 0 || tokens % chunk != 0) return;
  if (sequence.unrefined()) return;
  if (static_cast<size_t>(tokens / chunk) > chain->chunks.size()) return;
  store_.Publish(*chain, tokens, sequence.spec.precision, sequence.pages, sequence.reserve);
}

/// When the prompt lies behind a sequence, whose pages are still those of its last chunk.
void Scheduler::PublishTail(Sequence& sequence) {
  const PrefixChain* chain = sequence.spec.prefix.get();
  if (!sequence.shares || chain == nullptr || chain->tail_tokens == 0) return;
  if (sequence.unrefined()) return;
  const KvScheme& scheme = options_.scheme;
  const int32_t complete =
      chain->tail_tokens / scheme.chunk_tokens * scheme.chunk_tokens / scheme.page_tokens;
  if (sequence.computed != sequence.spec.prompt_tokens) return;
  if (Seals(sequence) && sequence.complete != complete) return;
  store_.Publish(*chain, chain->tail_tokens, sequence.spec.precision, sequence.pages,
                 sequence.reserve);
}

void Scheduler::TakeCached(Sequence& sequence) {
  const PrefixChain* chain = sequence.spec.prefix.get();
  if (!sequence.shares || chain == nullptr) return;
  const int32_t tokens = store_.CachedTokens(*chain, sequence.resumable_tokens());
  if (tokens == 0) return;
  const KvScheme& scheme = options_.scheme;
  store_.Resume(*chain, tokens, sequence.spec.precision, sequence.pages);
  sequence.computed = tokens;
  sequence.complete = tokens / scheme.chunk_tokens * scheme.chunk_tokens / scheme.page_tokens;
}

void Scheduler::GiveBack(Sequence& sequence) {
  store_.Unreserve(sequence.reserve);
  store_.Release(sequence.pages);
  sequence.computed = 0;
  sequence.complete = 0;
  sequence.prepared_until = 0;
}

void Scheduler::PlanDecode(size_t index, Draft& draft) {
  Sequence& sequence = *running_[index];
  if (sequence.computed >= sequence.prepared_until) {
    while (!Prepare(sequence, 1, draft)) {
      if (!MakeRoom(index, draft)) return;
    }
    const int32_t page = options_.scheme.page_tokens;
    sequence.prepared_until = (sequence.computed / page + 1) * page;
  }
  Emit(sequence, 1, StepItem::Role::kDecode, /*sample=*/true, draft);
}

int32_t Scheduler::CatchUpCount(const Sequence& sequence, const Draft& draft) const {
  const bool prefill = sequence.computed < sequence.spec.prompt_tokens;
  const int32_t grain = prefill ? options_.scheme.chunk_tokens : options_.scheme.page_tokens;
  const int32_t end = prefill ? sequence.spec.prompt_tokens : sequence.known() - 1;
  const int32_t refined = sequence.unrefined() ? INT32_MAX : sequence.unrefined_from;
  return std::min({draft.CatchUpBudget(), std::min(end, refined) - sequence.computed,
                   grain - sequence.computed % grain});
}

void Scheduler::PlanCatchUp(size_t index, Draft& draft) {
  Sequence& sequence = *running_[index];
  const int32_t count = CatchUpCount(sequence, draft);
  if (count <= 0) return;
  while (!Prepare(sequence, count, draft)) {
    if (!MakeRoom(index, draft)) return;
  }
  EmitCatchUp(sequence, count, draft);
}

void Scheduler::EmitCatchUp(Sequence& sequence, int32_t count, Draft& draft) {
  const bool prefill = sequence.computed < sequence.spec.prompt_tokens;
  const bool sample =
      prefill && sequence.sampled == 0 && sequence.computed + count == sequence.spec.prompt_tokens;
  draft.catch_up_left -= count;
  Emit(sequence, count, prefill ? StepItem::Role::kPrefill : StepItem::Role::kDecode, sample,
       draft);
}

bool Scheduler::FreeRefinements(size_t index) {
  if (!options_.elastic) return false;
  Sequence* lowest = nullptr;
  for (size_t i = running_.size(); i-- > index;) {
    Sequence& sequence = *running_[i];
    if (sequence.is_protected() || sequence.unrefined_from != INT32_MAX) continue;
    if (lowest != nullptr && sequence.spec.priority >= lowest->spec.priority) continue;
    if (store_.OwnRefinements(sequence.pages) > 0) lowest = &sequence;
  }
  if (lowest == nullptr) return false;
  lowest->unrefined_from = lowest->computed;
  store_.FreeRefinements(lowest->pages);
  ++unrefined_;
  return true;
}

/// Frees pages for the running sequence at `index`: refinements if that is allowed, else by
/// preempting the youngest that is not protected and that no outstanding plan holds. False: it must
/// wait, or was itself the youngest and is preempted.
bool Scheduler::MakeRoom(size_t index, Draft& draft) {
  draft.out_of_pages = true;
  if (FreeRefinements(index)) return true;
  while (draft.victims_end > index + 1) {
    const size_t victim = --draft.victims_end;
    if (running_[victim]->outstanding() || running_[victim]->is_protected()) continue;
    Preempt(victim, draft);
    return true;
  }
  for (size_t younger = running_.size(); younger-- > index + 1;) {
    if (running_[younger]->is_protected()) continue;
    if (draft.held_back == nullptr) draft.held_back = running_[younger];
    return false;
  }
  if (index + 1 < running_.size()) return false;  // until those have progressed
  if (index == 0 && retired_ > 0) {
    // Alone it fits, once those that have left give their pages back.
  } else if (!running_[index]->outstanding()) {
    // Alone it may still lie scattered over more slabs than it needs: it starts again in order.
    ASYMSERVE_CHECK(index > 0 || options_.scheme.seals());
    Sequence& sequence = *running_[index];
    Preempt(index, draft);
    if (index == 0) {
      sequence.shares = false;
      store_.DropKept();
    }
  }
  return false;
}

void Scheduler::Preempt(size_t index, Draft& draft) {
  Sequence& sequence = *running_[index];
  sequence.computed_before = std::max(sequence.computed_before, sequence.computed);
  sequence.ProtectNextLife(options_.scheme.page_tokens);
  GiveBack(sequence);
  sequence.state = Sequence::State::kWaiting;
  running_.erase(running_.begin() + static_cast<std::ptrdiff_t>(index));
  waiting_.Insert(sequence);
  draft.plan.preempted.push_back(sequence.spec.id);
  ++preemptions_;
}

KvDemand Scheduler::Promised() const {
  KvDemand promised;
  for (const Sequence* sequence : running_) {
    if (!Seals(*sequence)) continue;         // it took everything when it was admitted
    if (sequence->is_protected()) continue;  // it has a reserve
    if (sequence->decode_ready() || sequence->fully_planned()) continue;  // it has caught up
    promised += Beyond(store_.PeakDemand(sequence->tokens_at_admission()), sequence->pages);
  }
  return promised;
}

/// Or those that gave it up would have done so for newcomers, again and again.
KvDemand Scheduler::GivenUp() const {
  KvDemand given_up;
  for (const Sequence* sequence : running_) {
    if (!sequence->unrefined()) continue;
    given_up.records[static_cast<size_t>(KvRecord::kRefinement)] += options_.scheme.fresh_pages;
  }
  return given_up;
}

bool Scheduler::HasRoomFor(const Sequence& sequence, const KvDemand& headroom,
                           const Draft& draft) const {
  const KvDemand peak = store_.PeakDemand(sequence.tokens_at_admission(), sequence.spec.precision);
  KvDemand demand =
      sequence.never_ran() ? Beyond(peak, sequence.pages) : store_.StillTakes(peak, sequence.pages);
  demand += Promised();
  demand += GivenUp();
  if (!running_.empty()) {
    demand +=
        sequence.never_ran() ? headroom : Headroom(ProtectedSteps(sequence, draft.catch_up_tokens));
  }
  return store_.Fits(demand);
}

int32_t Scheduler::ProtectedSteps(const Sequence& sequence, int32_t catch_up_tokens) const {
  const KvScheme& scheme = options_.scheme;
  const int32_t prompt = sequence.spec.prompt_tokens;
  const int32_t per_step = std::min(catch_up_tokens, options_.step_tokens);
  return PagesFor(prompt - std::min(sequence.computed, prompt),
                  std::min(per_step, scheme.chunk_tokens)) +
         PagesFor(sequence.known() - prompt, std::min(per_step, scheme.page_tokens)) +
         scheme.page_tokens;
}

void Scheduler::Admit(Draft& draft) {
  const auto may_admit = [&] {
    return !waiting_.empty() && draft.CatchUpBudget() > 0 &&
           static_cast<int32_t>(running_.size()) + retired_ < options_.max_running;
  };
  if (!may_admit()) return;
  const KvDemand headroom = Headroom(1);  // who is admitted below has a page to spare
  bool blocked = false;
  while (may_admit()) {
    if (TryAdmit(waiting_.head(), headroom, draft)) continue;
    blocked = true;
    if (!AdmitBehindHead(headroom, draft)) break;
  }
  blocked_plans_ += blocked ? 1 : 0;
}

/// Gives a waiting sequence what is cached of its prompt, if it has room then. Where cached pages
/// lie may leave it less room than it had if it computed them anew, in place of them. Then it waits
/// for room beside them, but no longer than computing them would take: until the others have
/// computed as many tokens.
bool Scheduler::FindRoom(Sequence& sequence, const KvDemand& headroom, const Draft& draft) {
  TakeCached(sequence);
  if (HasRoomFor(sequence, headroom, draft)) return true;
  const int32_t cached = sequence.computed;
  if (cached == 0) return false;
  GiveBack(sequence);
  if (!HasRoomFor(sequence, headroom, draft)) return false;
  if (running_.empty()) return true;
  if (sequence.tried_in != draft.plan.number) sequence.hit_waited += draft.plan.tokens;
  sequence.tried_in = draft.plan.number;
  return sequence.hit_waited >= cached;
}

bool Scheduler::TryAdmit(Sequence& sequence, const KvDemand& headroom, Draft& draft) {
  if (!FindRoom(sequence, headroom, draft)) {
    GiveBack(sequence);
    return false;
  }
  const int32_t count = CatchUpCount(sequence, draft);
  const int32_t taken =
      Seals(sequence) ? count : sequence.tokens_at_admission() - sequence.computed;
  const bool reserved =
      sequence.never_ran() ||
      store_.Reserve(store_.StillTakes(
                         store_.PeakDemand(sequence.tokens_at_admission(), sequence.spec.precision),
                         sequence.pages),
                     sequence.reserve);
  if (!reserved || !Prepare(sequence, taken, draft)) {
    GiveBack(sequence);
    return false;
  }
  sequence.hit_waited = 0;
  if (sequence.never_ran()) cached_tokens_ += static_cast<uint64_t>(sequence.computed);

  waiting_.Admit(sequence);
  if (sequence.never_ran()) {
    deadlines_.erase({sequence.expires(), sequence.spec.id});
    sequence.age = ++admitted_;
    if (sequence.expires() != kNoDeadline) {
      deadlines_.emplace(sequence.expires(), sequence.spec.id);
    }
  }
  sequence.state = Sequence::State::kRunning;
  running_.insert(std::upper_bound(running_.begin(), running_.end(), sequence.age,
                                   [](uint64_t age, const Sequence* s) { return age < s->age; }),
                  &sequence);
  EmitCatchUp(sequence, count, draft);
  return true;
}

bool Scheduler::AdmitBehindHead(const KvDemand& headroom, Draft& draft) {
  constexpr int32_t kTries = 4;  // each looks at every running sequence
  Sequence& head = waiting_.head();
  if (!head.never_ran() || head.overtaken >= options_.bypass_sequences) return false;
  waiting_.ListBehindHead(behind_head_);
  int32_t tries = 0;
  for (Sequence* sequence : behind_head_) {
    const bool smaller = sequence->tokens_at_admission() < head.tokens_at_admission();
    if (!smaller && sequence->spec.precision == head.spec.precision) continue;
    if (head.overtaken_tokens + sequence->cost() > options_.bypass_tokens) continue;
    if (tries++ == kTries) return false;
    if (!TryAdmit(*sequence, headroom, draft)) continue;
    ++head.overtaken;
    head.overtaken_tokens += sequence->cost();
    return true;
  }
  return false;
}

/// The new page of a sequence that seals takes the near record of the one that is sealed for it.
KvDemand Scheduler::Growth(int32_t steps, int32_t least_pages) const {
  const auto kind = [this](KvPrecision precision) {
    return options_.scheme.seals(precision) ? KvRecord::kBase : KvRecord::kNear;
  };
  KvDemand growth;
  int32_t pages = 0;
  for (const Sequence* sequence : running_) {
    const int32_t more = sequence->pages_within(steps, options_.scheme.page_tokens);
    if (more == 0) continue;
    const KvPrecision precision = sequence->spec.precision;
    growth.records[static_cast<size_t>(kind(precision))] +=
        more * options_.scheme.near_records(precision);
    pages += more;
  }
  growth.records[static_cast<size_t>(kind(KvPrecision::kScheme))] +=
      std::max(0, least_pages - pages);
  return growth;
}

/// Or one of those that run would preempt who is admitted right away.
KvDemand Scheduler::Headroom(int32_t steps) const {
  return Growth(steps, options_.watermark_pages);
}

void Scheduler::Emit(Sequence& sequence, int32_t count, StepItem::Role role, bool sample,
                     Draft& draft) {
  const int32_t begin = sequence.computed;
  const int32_t end = begin + count;
  const auto page_count = static_cast<size_t>(PagesFor(end, options_.scheme.page_tokens));
  ASYMSERVE_CHECK(count > 0 && page_count <= sequence.pages.size());
  const StepItem item = {.sequence = sequence.spec.id,
                         .begin = begin,
                         .count = count,
                         .role = role,
                         .sample = sample,
                         .unrefined = sequence.unrefined(),
                         .pages = std::span(sequence.pages).first(page_count)};
  const bool prefill = role == StepItem::Role::kPrefill;
  (prefill ? prefill_ : decode_).push_back({item, &sequence});
  draft.plan.tokens += count;
  recomputed_tokens_ +=
      static_cast<uint64_t>(std::max(0, std::min(end, sequence.computed_before) - begin));
  sequence.computed = end;
  if (begin < sequence.protected_until && !sequence.is_protected()) {
    store_.Unreserve(sequence.reserve);
  }
  sequence.sampled += sample ? 1 : 0;
  ++sequence.outstanding_plans;
}

}  // namespace asymserve
