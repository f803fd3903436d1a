#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"

#include "engine/kv/ids.h"
#include "engine/kv/page_store.h"
#include "engine/sched/admission_queue.h"
#include "engine/sched/sequence.h"

// Continuous batching as bookkeeping: a pure function of its calls. No clock, no threads, no token
// values; equal calls give equal plans. One thread.
//
// A sequence waits, runs (prefill in chunks, then one token a step), and leaves. What a plan asks
// for is certain: its pages are held. When pages run out the youngest running sequence is
// preempted: it gives its pages back and goes to the head of the queue, and later every token is
// computed again in its first role, prompt tokens as prefill, generated tokens as decode rows, so
// its text does not change (engine/README.md, invariant 8). One that came back is protected until
// it has computed a page of new tokens: its records are reserved up to there, and who needs others
// meanwhile takes those of the youngest that is not protected, or waits. Who is admitted next:
// AdmissionQueue.
//
// An elastic scheduler has refinements freed first, so that who runs can go on, never to admit
// others: those of the lowest priority, of its sequences the youngest's. From that token on the
// sequence reads its sealed pages as aged. Preempted later, it is computed again in just that way,
// and nothing that it computed so is shared.
//
// Prompts that begin alike share the pages of whole chunks, while they run and afterwards
// (kv/prefix_index.h): a sequence that is admitted begins after the chunks that are there.
//
// Age is the order of first admission; a preempted sequence keeps its age.

namespace asymserve {

struct SchedulerOptions {
  KvScheme scheme;  // page, chunk and windows; prefill never crosses a chunk within one item
  ArenaCut arena;
  int32_t max_context_tokens = 0;  // prompt + generated tokens of one sequence
  int32_t max_running = 0;         // sequences holding pages
  int32_t max_waiting = 0;         // sequences in the queue that never ran
  int32_t step_tokens = 0;         // token budget of one step, >= max_running
  /// Pages kept free when a new sequence is admitted, so that running ones can grow before anybody
  /// must be preempted. Not applied when nothing runs.
  int32_t watermark_pages = 0;
  /// A waiting sequence goes before one of its tenant that is a priority level above it and arrived
  /// this much later.
  TimeUs aging_us = 10'000'000;
  /// While the head of the queue finds no room, smaller ones behind it may be admitted: for each
  /// head at most so many, and of so many tokens (prompt + max_new) together. Then nobody is until
  /// the head is, at the latest when those that run by then have ended. 0: nobody. A preempted head
  /// is never overtaken.
  int32_t bypass_sequences = 0;
  int64_t bypass_tokens = 0;
  /// Before a sequence is preempted, the lowest class gives up the refinements of its fresh pages
  /// and goes on with less precision.
  bool elastic = false;
};

/// One sequence's share of a step, at most one per sequence: tokens [begin, begin + count) of
/// prompt + generated.
struct StepItem {
  enum class Role : uint8_t {
    kPrefill,  // prompt tokens, within one chunk
    kDecode,   // generated tokens: one new, or, after a preemption, a replay within one page
  };
  SequenceId sequence{};
  int32_t begin = 0;
  int32_t count = 0;
  Role role = Role::kPrefill;
  bool sample = false;     // the last token's logits give the next token
  bool unrefined = false;  // reads pages as aged that are to be fresh (SchedulerOptions::elastic)
  /// Page table up to and including the item's last token, as this item reads it. Valid until the
  /// next non-const call.
  std::span<const KvPage> pages;
};

struct StepPlan {
  uint64_t number = 0;
  std::vector<StepItem> items;        // decode items first; each role oldest sequence first
  std::vector<KvSealOp> seals;        // run before the items
  std::vector<SequenceId> expired;    // out of time: gone, pages already released
  std::vector<SequenceId> preempted;  // will be replayed
  int32_t tokens = 0;
  bool empty() const { return items.empty(); }
};

/// What the engine saw of one sampled item, in plan order (items with sample == true only).
struct Outcome {
  SequenceId sequence{};
  bool finished = false;  // stop, end token, reader gone: leaves after this step
};

struct SchedulerStats {
  int32_t waiting = 0;  // in the queue, preempted ones included
  int32_t running = 0;  // take part in plans; those that left but wait for a Commit are not counted
  int32_t pages_total = 0, pages_used = 0;   // total: if one sequence had them all
  int32_t slabs_total = 0, slabs_used = 0;   // of the arena; used: by sequences
  int32_t slabs_cached = 0;                  // hold nothing but what the prefix cache keeps
  std::array<int32_t, 3> records_used = {};  // by KvRecord, that sequences hold, each once
  uint64_t preemptions = 0;
  uint64_t recomputed_tokens = 0;  // computed again because of preemption
  uint64_t unrefined = 0;          // sequences that gave up their refinements
  uint64_t blocked_plans = 0;      // in which the first that waits found no room in the arena
  uint64_t cached_tokens = 0;      // of prompts, never computed, for records held them
  uint64_t cache_evictions = 0;    // groups of records that the prefix cache gave up for room
};

class Scheduler {
 public:
  /// Checks that the options are in range.
  explicit Scheduler(const SchedulerOptions& options);
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;
  ~Scheduler();

  /// Queues a sequence, or refuses it and touches nothing: ResourceExhausted when the queue is
  /// full; InvalidArgument when it could never run ("needs 41 pages, the pool has 32"), when a
  /// length is out of range, or when the id is known.
  absl::Status Add(const SequenceSpec& spec);

  /// The sequence leaves now: from the queue at once; while a planned step holds it, its pages are
  /// released by that step's Commit. Unknown ids are ignored.
  void Cancel(SequenceId id);

  /// The next step. Every plan with items must be committed, in order; one plan may be outstanding
  /// when the next is made (its sequences are then assumed to go on). An empty plan needs no
  /// Commit. With none outstanding the plan is empty only when nothing waits or runs, or when it
  /// preempted the last that ran, to be admitted by the next. Sequences
  /// whose deadline is `now` or earlier expire (queue_deadline, while they never ran), unless the
  /// outstanding plan holds them: they are left out of this plan and expire in the next. While some
  /// sequence decodes, those that catch up get `catch_up_tokens` together at most, 1 or more.
  StepPlan Plan(TimeUs now, int32_t catch_up_tokens = INT32_MAX);

  /// Ends the oldest outstanding plan. `outcomes`: one for each item with `sample`, in plan order,
  /// also for sequences that were cancelled since. Returns the sequences that left the scheduler,
  /// by outcome or by reaching max_new_tokens; cancelled and expired ones are not among them.
  std::vector<SequenceId> Commit(const StepPlan& plan, std::span<const Outcome> outcomes);

  /// Drops what is kept of prompts and no sequence holds. While no plan is outstanding.
  void DropKept();

  SchedulerStats stats() const;
  /// The records of the arena, for what may use slabs in which there is nothing (sched/shadow.h).
  const RecordPool& arena() const { return store_.pool(); }
  bool idle() const;  // nothing waits, runs, or is planned
  /// The earliest deadline of any sequence, kNoDeadline if none: when an idle engine must plan
  /// again.
  TimeUs next_deadline() const;
  /// Checks every invariant this class states; for tests. Aborts on a broken one.
  void CheckInvariants() const;

 private:
  struct Draft;  // a plan while it is made
  struct DraftItem {
    StepItem item;
    Sequence* sequence = nullptr;
  };
  struct OutstandingItem {
    Sequence* sequence;
    bool sample;
  };
  struct OutstandingPlan {
    uint64_t number;
    std::vector<OutstandingItem> items;
  };

  void Expire(TimeUs now, StepPlan& plan);
  void PlanRunning(Draft& draft);
  void PlanDecode(size_t index, Draft& draft);
  /// How many tokens a sequence that catches up computes next, within its chunk or page.
  int32_t CatchUpCount(const Sequence& sequence, const Draft& draft) const;
  void PlanCatchUp(size_t index, Draft& draft);
  void EmitCatchUp(Sequence& sequence, int32_t count, Draft& draft);
  /// Gives a sequence the records for its next `count` tokens; false when they are missing.
  bool Prepare(Sequence& sequence, int32_t count, Draft& draft);
  bool MakeRoom(size_t index, Draft& draft);
  /// Frees the refinements of one of the running sequences from `index` on, those not planned yet;
  /// false: none has any.
  bool FreeRefinements(size_t index);
  void Preempt(size_t index, Draft& draft);
  void Admit(Draft& draft);
  bool FindRoom(Sequence& sequence, const KvDemand& headroom, const Draft& draft);
  bool TryAdmit(Sequence& sequence, const KvDemand& headroom, Draft& draft);
  /// Admits one that goes past the head of the queue, if the head's allowance has room for it.
  bool AdmitBehindHead(const KvDemand& headroom, Draft& draft);
  void Emit(Sequence& sequence, int32_t count, StepItem::Role role, bool sample, Draft& draft);
  /// Takes a waiting or running sequence out of its list; forgets it, or retires it while planned.
  void Leave(Sequence& sequence);
  void Forget(Sequence& sequence);
  void RecordItems(Draft& draft);
  bool Seals(const Sequence& sequence) const {
    return options_.scheme.seals(sequence.spec.precision);
  }
  /// What all running sequences take to grow for `steps` steps, and no less than `least_pages`.
  KvDemand Growth(int32_t steps, int32_t least_pages = 0) const;
  /// Growth, and no less than the watermark.
  KvDemand Headroom(int32_t steps) const;
  /// The most steps that a sequence runs before it may be preempted again, if it gets a chunk or a
  /// page of tokens in each while it catches up, or `catch_up_tokens` where those are fewer.
  int32_t ProtectedSteps(const Sequence& sequence, int32_t catch_up_tokens) const;
  /// Records that admitted sequences are still to take until they have caught up.
  KvDemand Promised() const;
  /// Refinements that running sequences would hold, had they not given them up.
  KvDemand GivenUp() const;
  bool HasRoomFor(const Sequence& sequence, const KvDemand& headroom, const Draft& draft) const;
  /// Gives a sequence that holds nothing the pages that are cached, or takes those back.
  void TakeCached(Sequence& sequence);
  void GiveBack(Sequence& sequence);
  void PublishChunks(Sequence& sequence);
  void PublishTail(Sequence& sequence);

  void CheckSequence(const Sequence& sequence) const;
  static void CheckProtection(const Sequence& sequence);
  void CheckPrepared(const Sequence& sequence) const;
  void CheckLists() const;
  void CheckPages() const;

  const SchedulerOptions options_;
  PageStore store_;
  std::unordered_map<SequenceId, std::unique_ptr<Sequence>> sequences_;  // never iterated to plan
  AdmissionQueue waiting_;
  std::vector<Sequence*> behind_head_;                 // of AdmitBehindHead
  std::vector<Sequence*> running_;                     // oldest first
  std::set<std::pair<TimeUs, SequenceId>> deadlines_;  // expires() of waiting and running ones
  std::deque<OutstandingPlan> outstanding_;            // at most two
  // Empty between calls, kept for their memory: a plan of 1,000 sequences allocates little.
  std::vector<DraftItem> decode_, prefill_;
  std::vector<OutstandingItem> spare_items_;
  int32_t retired_ = 0;
  uint64_t added_ = 0, admitted_ = 0, planned_ = 0;
  uint64_t preemptions_ = 0, recomputed_tokens_ = 0, cached_tokens_ = 0, unrefined_ = 0;
  uint64_t blocked_plans_ = 0;
};

}  // namespace asymserve
