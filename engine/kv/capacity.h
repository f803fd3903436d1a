#pragma once

#include <array>
#include <cstdint>

#include "engine/kv/layout.h"
#include "engine/kv/record_pool.h"
#include "engine/kv/scheme.h"

// How many sequences an arena holds. Pure arithmetic.

namespace asymserve {

/// What the sequences of a plan look like: all of one length, all at their longest at once.
struct KvLoad {
  int64_t prompt_tokens = 1;  // at least 1
  int64_t output_tokens = 0;  // generated ones that are stored
  /// Of one step: it bounds how many sequences are in the middle of a prompt at once, and so hold
  /// near pages of a chunk that is not sealed yet.
  int32_t step_tokens = 512;

  int64_t tokens() const { return prompt_tokens + output_tokens; }
};

/// Records by KvRecord, in 64 bits: of many sequences.
struct KvRecords {
  std::array<int64_t, 3> count = {};

  int64_t& operator[](KvRecord kind) { return count[static_cast<size_t>(kind)]; }
  int64_t operator[](KvRecord kind) const { return count[static_cast<size_t>(kind)]; }
  friend bool operator==(const KvRecords&, const KvRecords&) = default;
};

/// Records that sequences of one load hold at most.
class KvDemandModel {
 public:
  /// The scheme must be valid and the load at least one token.
  KvDemandModel(const KvLayout& layout, const KvScheme& scheme, const KvLoad& load);

  /// While it decodes: the most records of each kind on its way from the prompt to its last token.
  const KvRecords& decoding() const { return decoding_; }
  /// The most on its whole way, chunks of the prompt included: PageStore::PeakDemand.
  const KvRecords& peak() const { return peak_; }
  /// How many sequences are in the middle of their prompts at once.
  int64_t prefilling() const { return prefilling_; }
  /// `sequences` at once: all as if decoding, and up to prefilling() of them at their peak.
  KvRecords Together(int64_t sequences) const;
  /// Slabs that so many sequences bind. Several leave slabs of small records partly used, for the
  /// prefix cache keeps some of a slab's records longer than others: one slab in 128 of such kinds
  /// is counted on top (tests/engine/sched/planned_capacity_test.cc runs what is planned).
  int64_t SlabsTogether(const ArenaCut& cut, int64_t sequences) const;

 private:
  KvRecords decoding_, peak_;
  int64_t prefilling_ = 0;
};

/// Slabs that so many records bind. Every record kind that is asked for must exist in the cut.
int64_t SlabsFor(const ArenaCut& cut, const KvRecords& records);

/// The largest n >= 0 for which fits(n), which is true up to there and false from there on.
template <typename Fits>
int64_t LargestThatFits(Fits fits) {
  constexpr int64_t kMost = int64_t{1} << 40;
  int64_t largest = 0;
  int64_t too_many = 1;
  while (too_many < kMost && fits(too_many)) {
    largest = too_many;
    too_many *= 2;
  }
  while (largest + 1 < too_many) {
    const int64_t middle = largest + (too_many - largest) / 2;
    (fits(middle) ? largest : too_many) = middle;
  }
  return largest;
}

/// How much an arena holds.
struct KvCapacity {
  int64_t tokens = 0;     // of one sequence that has the arena alone
  int64_t sequences = 0;  // of a load, all at once

  friend bool operator==(const KvCapacity&, const KvCapacity&) = default;
};

/// What an arena of `arena_bytes` holds with a valid scheme.
KvCapacity CapacityOf(const KvShape& shape, const KvScheme& scheme, int64_t arena_bytes,
                      const KvLoad& load);

/// The most tokens, a multiple of a page, of one sequence alone in `cut`.
int64_t TokensAlone(const KvLayout& layout, const KvScheme& scheme, const ArenaCut& cut);

}  // namespace asymserve
