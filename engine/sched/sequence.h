#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/kv/page_store.h"
#include "engine/kv/prefix_index.h"

// The scheduler's record of one sequence, and the token arithmetic that needs nothing else.
//
// A prompt of P tokens and up to N generated ones form one string of tokens 0 .. P + N - 1. A token
// is computed when a step runs it and stores its K and V; the logits of the newest token sample the
// next one, so the last generated token is never computed and at most P + N - 1 are stored.
// `computed` and `sampled` count outstanding plans in, as if they had run.

namespace asymserve {

/// Microseconds on any monotonic clock; only differences count.
using TimeUs = int64_t;
inline constexpr TimeUs kNoDeadline = INT64_MAX;

inline constexpr int32_t kMaxPriority = 100;
inline constexpr int32_t kMaxWeight = 10'000;

struct SequenceSpec {
  SequenceId id{};
  int32_t prompt_tokens = 0;            // >= 1
  int32_t max_new_tokens = 0;           // >= 1; the sequence ends by itself when it reached them
  int32_t tenant = 0;                   // whose share of the admissions it takes (AdmissionQueue)
  int32_t weight = 1;                   // of that tenant, 1 .. kMaxWeight
  int32_t priority = 0;                 // higher is admitted first of its tenant, +-kMaxPriority
  TimeUs arrival = 0;                   // earlier is admitted first of its tenant
  TimeUs deadline = kNoDeadline;        // expires while waiting, and while running
  TimeUs queue_deadline = kNoDeadline;  // expires if it never ran by then
  KvPrecision precision = KvPrecision::kScheme;
  std::shared_ptr<const PrefixChain> prefix;  // of the prompt; null: nothing is shared
};

/// Pages that hold `tokens` tokens.
constexpr int32_t PagesFor(int64_t tokens, int32_t page_tokens) {
  return static_cast<int32_t>((tokens + page_tokens - 1) / page_tokens);
}

struct Sequence {
  enum class State : uint8_t {
    kWaiting,  // in the queue, holds no pages
    kRunning,  // holds pages, takes part in plans
    kRetired,  // has left; an outstanding plan still uses its pages
  };

  Sequence(const SequenceSpec& the_spec, uint64_t number) : spec(the_spec), add_number(number) {}

  SequenceSpec spec;
  State state = State::kWaiting;
  uint64_t add_number;            // order of Add
  uint64_t age = 0;               // order of first admission, from 1; 0: never ran
  int32_t computed = 0;           // tokens planned in this life
  int32_t sampled = 0;            // generated tokens planned, over all lives
  int32_t committed = 0;          // generated tokens whose plan was committed
  int32_t computed_before = 0;    // the most tokens an earlier life computed
  int32_t outstanding_plans = 0;  // that hold an item of this sequence
  int32_t overtaken = 0;          // times that another was admitted past it as head of the queue
  int64_t overtaken_tokens = 0;   // cost of those
  int32_t protected_until = 0;    // tokens it computes before it may be preempted (again)
  std::vector<KvPage> pages;
  bool shares = true;    // false: the room is so tight that its pages must lie in order
  int32_t complete = 0;  // pages that count as complete in the newest plan (PageStore::Prepare)
  /// A decode step of a token before this one finds the page table as it is to be.
  int32_t prepared_until = 0;
  /// Tokens from this one on read its sealed pages without refinements, in every life.
  int32_t unrefined_from = INT32_MAX;
  KvDemand reserve;        // records that it takes while it is protected
  int64_t hit_waited = 0;  // tokens of others since it has room only without what is cached
  uint64_t tried_in = 0;   // the plan that last counted those

  bool never_ran() const { return age == 0; }
  /// When it leaves by itself.
  TimeUs expires() const {
    return never_ran() ? std::min(spec.deadline, spec.queue_deadline) : spec.deadline;
  }
  bool outstanding() const { return outstanding_plans > 0; }
  /// Tokens that it takes at most, what fair queuing counts.
  int64_t cost() const { return int64_t{spec.prompt_tokens} + spec.max_new_tokens; }
  /// Tokens that exist: the prompt and what was sampled.
  int32_t known() const { return spec.prompt_tokens + sampled; }
  int32_t max_stored() const { return spec.prompt_tokens + spec.max_new_tokens - 1; }
  /// Every token it may generate is planned; only commits are to come.
  bool fully_planned() const { return sampled == spec.max_new_tokens; }
  /// The next step computes its newest token and samples another.
  bool decode_ready() const { return sampled > 0 && computed == known() - 1 && !fully_planned(); }
  bool unrefined() const { return computed >= unrefined_from; }
  /// How its next token reads its pages.
  KvPrecision precision() const { return unrefined() ? KvPrecision::kUnrefined : spec.precision; }
  /// Running, it may not be preempted.
  bool is_protected() const { return computed < protected_until; }
  /// A sequence is preempted now: before it may be again it is to compute a page of tokens that no
  /// life of it did before, or all that it may.
  void ProtectNextLife(int32_t page_tokens) {
    protected_until =
        static_cast<int32_t>(std::min<int64_t>(int64_t{known()} + page_tokens, max_stored()));
  }
  /// Tokens whose pages an admission takes: all that exist and one more, so that it is not the
  /// first decode step that finds no page, and as far as it is protected.
  int32_t tokens_at_admission() const {
    return std::max(std::min(known() + 1, max_stored()), protected_until);
  }
  /// Tokens of the prompt that may be taken from the cache: some token is left to compute.
  int32_t resumable_tokens() const {
    return std::min(spec.prompt_tokens - (sampled > 1 ? 0 : 1), unrefined_from);
  }
  /// Pages that it asks for within `steps` steps beyond those that it holds or was admitted for.
  int32_t pages_within(int32_t steps, int32_t page_tokens) const {
    const bool catches_up = !decode_ready() && !fully_planned();
    const int32_t admitted = catches_up ? PagesFor(tokens_at_admission(), page_tokens) : 0;
    const int64_t tokens = int64_t{catches_up ? tokens_at_admission() - 1 : computed} + steps;
    const int32_t pages_then = PagesFor(std::min<int64_t>(tokens, max_stored()), page_tokens);
    return std::max(0, pages_then - std::max(admitted, static_cast<int32_t>(pages.size())));
  }
};

}  // namespace asymserve
