#pragma once

#include <cstdint>
#include <deque>
#include <span>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"

#include "engine/kv/ids.h"
#include "engine/kv/page_pool.h"

// Continuous batching as bookkeeping: a pure function of its calls. No clock, no threads, no token
// values; equal calls give equal plans. One thread.
//
// A sequence waits, runs (prefill in chunks, then one token a step), and leaves. What a plan asks
// for is certain: its pages are held. When pages run out the youngest running sequence is
// preempted: it gives its pages back and goes to the head of its queue, and later every token is
// computed again in its first role, prompt tokens as prefill, generated tokens as decode rows, so
// its text does not change (engine/README.md, invariant 8).

namespace asymserve {

/// Microseconds on any monotonic clock; only differences count.
using TimeUs = int64_t;
inline constexpr TimeUs kNoDeadline = INT64_MAX;

struct SchedulerOptions {
  int32_t total_pages = 0;
  int32_t page_tokens = 64;
  int32_t chunk_tokens = 256;      // prefill never crosses a multiple of this within one item
  int32_t max_context_tokens = 0;  // prompt + generated tokens of one sequence
  int32_t max_running = 0;         // sequences holding pages
  int32_t max_waiting = 0;         // sequences in the queue that never ran
  int32_t step_tokens = 0;         // token budget of one step, >= max_running
  /// Pages kept free when a new sequence is admitted, so that running ones can grow before anybody
  /// must be preempted. Not applied when nothing runs.
  int32_t watermark_pages = 0;
};

struct SequenceSpec {
  SequenceId id{};
  int32_t prompt_tokens = 0;   // >= 1
  int32_t max_new_tokens = 0;  // >= 1; the sequence ends by itself when it reached them
  int32_t priority = 0;        // higher is admitted first; affects admission only
  TimeUs arrival = 0;
  TimeUs deadline = kNoDeadline;  // expires while waiting, and while running
};

/// One sequence's share of a step: tokens [begin, begin + count) of prompt + generated.
struct StepItem {
  enum class Role : uint8_t {
    kPrefill,  // prompt tokens, within one chunk
    kDecode,   // generated tokens: one new, or, after a preemption, a replay within one page
  };
  SequenceId sequence{};
  int32_t begin = 0;
  int32_t count = 0;
  Role role = Role::kPrefill;
  bool sample = false;  // the last token's logits give the next token
  /// Page table up to and including the item's last token. Valid until the next non-const call.
  std::span<const PageId> pages;
};

struct StepPlan {
  uint64_t number = 0;
  std::vector<StepItem> items;        // decode items first, oldest sequence first
  std::vector<SequenceId> expired;    // deadline passed: gone, pages already released
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
  int32_t waiting = 0, running = 0;
  int32_t pages_total = 0, pages_used = 0;
  uint64_t preemptions = 0;
  uint64_t recomputed_tokens = 0;  // computed again because of preemption
};

class Scheduler {
 public:
  explicit Scheduler(const SchedulerOptions& options);

  /// Queues a sequence, or refuses it and touches nothing: ResourceExhausted when the queue is
  /// full; InvalidArgument when it could never run ("needs 41 pages, the pool has 32"), when a
  /// length is out of range, or when the id is known.
  absl::Status Add(const SequenceSpec& spec);

  /// The sequence leaves now: from the queue at once; while a planned step holds it, its pages are
  /// released by that step's Commit. Unknown ids are ignored.
  void Cancel(SequenceId id);

  /// The next step. Every returned plan must be committed, in order; one plan may be outstanding
  /// when the next is made (its sequences are then assumed to go on).
  StepPlan Plan(TimeUs now);

  /// Ends the oldest outstanding plan. `outcomes`: one for each item with `sample`, in plan order.
  /// Returns the sequences that left the scheduler, by outcome or by reaching max_new_tokens.
  std::vector<SequenceId> Commit(const StepPlan& plan, std::span<const Outcome> outcomes);

  SchedulerStats stats() const;
  bool idle() const;  // nothing waits, runs, or is planned
  /// The earliest deadline of any sequence, kNoDeadline if none: when an idle engine must plan
  /// again.
  TimeUs next_deadline() const;
  /// Checks every invariant this class states; for tests. Aborts on a broken one.
  void CheckInvariants() const;
};

}  // namespace asymserve
