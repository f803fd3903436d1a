#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/kv/page_store.h"

// A sequence that has ended, computed twice more side by side: as the scheme keeps it, which gives
// the logits that it had, bit for bit (engine/README.md, invariant 8), and exactly. So every
// generated token can be compared, however short the output behind a long prompt, without a row of
// logits being kept, and nothing is done while somebody waits for that sequence.
//
// It lies in slabs of a scheduler's arena that are empty and that the scheduler would take last. It
// does not tell the scheduler: to that they are empty, so no plan depends on a shadow. Once the
// scheduler takes one of them the shadow has lost its records, and must not take part in that plan
// or a later one. Pure bookkeeping, like Scheduler. One thread.

namespace asymserve {

struct ShadowSpec {
  int32_t prompt_tokens = 0;
  int32_t tokens = 0;  // and the generated ones, at least one
};

/// A shadow's share of a step: both its sequences compute tokens [begin, begin + count), in the
/// roles that they had.
struct ShadowStep {
  int32_t begin = 0;
  int32_t count = 0;
  int32_t rows = 0;  // of the newest of these tokens the logits are wanted, of both sequences
  /// Page tables up to and including the newest token.
  std::vector<KvPage> scheme_pages, exact_pages;
  std::vector<KvSealOp> seals;  // run before the step, with those of the plan

  bool empty() const { return count == 0; }
};

class Shadow {
 public:
  /// Null when too few slabs of `arena`, which is cut as `cut` says, are empty. Not between a plan
  /// of the scheduler and Plan for it: operations of that plan may use what it gave up.
  static std::unique_ptr<Shadow> Begin(const ShadowSpec& spec, const KvScheme& scheme,
                                       const ArenaCut& cut, const RecordPool& arena);

  /// Whether the slabs have been empty ever since. To be asked after each plan of the scheduler.
  bool HasRecords(const RecordPool& arena) const;
  /// Its share of the step that the scheduler has planned, while it has its records: `tokens`
  /// tokens and `rows` rows of logits at most, over both sequences. Absent if no record is found,
  /// which is its end.
  std::optional<ShadowStep> Plan(int32_t tokens, int32_t rows);
  /// Every token is planned.
  bool done() const { return computed_ == stored_; }

 private:
  struct Slab {
    int32_t index;
    uint64_t emptiness;  // RecordPool::emptiness
  };
  struct Copy {
    KvPrecision precision;
    std::vector<KvPage> pages;  // in records of store_
    int32_t complete = 0;
  };

  Shadow(const ShadowSpec& spec, const KvScheme& scheme, const ArenaCut& cut,
         std::vector<Slab> slabs);
  bool Prepare(Copy& copy, int32_t count, std::vector<KvSealOp>& seals);
  /// The record of the arena that a record of store_ is.
  PageId Place(KvRecord kind, PageId id) const;
  std::vector<KvPage> Place(const Copy& copy) const;

  const int32_t prompt_tokens_;
  const int32_t stored_;  // the last token is never computed
  const ArenaCut cut_;
  const std::vector<Slab> slabs_;
  PageStore store_;  // its slab i is slabs_[i]
  Copy scheme_{KvPrecision::kScheme, {}};
  Copy exact_{KvPrecision::kExact, {}};
  int32_t computed_ = 0;
};

}  // namespace asymserve
