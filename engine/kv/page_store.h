#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv/page_tier.h"
#include "engine/kv/prefix_index.h"
#include "engine/kv/record_pool.h"
#include "engine/kv/seal_op.h"

namespace asymserve {

/// How many records of each kind, by KvRecord.
struct KvDemand {
  std::array<int32_t, 3> records = {};

  KvDemand& operator+=(const KvDemand& other) {
    for (size_t k = 0; k < records.size(); ++k) records[k] += other.records[k];
    return *this;
  }
  KvDemand& operator-=(const KvDemand& other) {
    for (size_t k = 0; k < records.size(); ++k) records[k] -= other.records[k];
    return *this;
  }
  friend bool operator==(const KvDemand&, const KvDemand&) = default;
};

/// What `demand` leaves to be had by a sequence that holds `pages`.
KvDemand Beyond(KvDemand demand, std::span<const KvPage> pages);

/// The page tables of sequences over one arena: which records a page holds, and in which tier it is
/// read, as the sequence grows. Pure bookkeeping; the bytes live in a backend, which runs seal
/// operations and steps in the order in which they were planned.
///
/// A record that a sequence gave up in this plan (a near record whose page is being sealed) may
/// already be used again for the same kind, because seals read before the step writes; for another
/// kind, which a seal might write, it is free from EndPlan on.
///
/// Records may be reserved for a sequence that is sure to take them: whatever others take, they can
/// be had without evicting a record that is pinned (checked by CheckKept).
///
/// Sequences whose prompts begin alike may share records, and records of past sequences are kept
/// for those to come while nobody needs their room (kv/prefix_index.h). Shared or kept records are
/// never written. One thread.
class PageStore {
 public:
  PageStore(const KvScheme& scheme, const ArenaCut& arena);

  /// The most records that a sequence holds at once on its way to `tokens` stored tokens.
  KvDemand PeakDemand(int64_t tokens, KvPrecision precision = KvPrecision::kScheme) const;
  /// Whether a sequence alone in the arena always finds what it needs.
  bool FitsAlone(const KvDemand& demand) const;
  /// Whether records for `demand` can be had now beside what is reserved, if need be in place of
  /// kept ones.
  bool Fits(const KvDemand& demand) const;
  /// The most tokens of one sequence that fit the arena alone.
  int64_t MaxTokens(KvPrecision precision = KvPrecision::kScheme) const {
    const int32_t pages = precision == KvPrecision::kExact ? exact_pages_total_ : pages_total_;
    return int64_t{pages} * scheme_.page_tokens;
  }

  /// Makes the page table ready for a step that stores tokens up to `tokens` and reads complete
  /// pages as TierOf says for `complete`: seals what leaves the window, ages what is no longer
  /// fresh, and gives every page near enough to be written a record. Nothing is sealed for kExact,
  /// whose pages are `exact`; a sequence keeps its precision, until FreeRefinements makes it
  /// kUnrefined. False, and nothing done, when records are missing. A sequence with a reserve takes
  /// from that, and what it alone gives up is added.
  [[nodiscard]] bool Prepare(std::vector<KvPage>& pages, int64_t tokens, int32_t complete,
                             std::vector<KvSealOp>& seals,
                             KvPrecision precision = KvPrecision::kScheme,
                             KvDemand* reserve = nullptr);
  /// Ages the fresh pages of a kScheme sequence for which nothing was prepared in this plan: from
  /// now on it is kUnrefined. Its refinements can be had at once, unless others hold them.
  void FreeRefinements(std::vector<KvPage>& pages);
  /// Refinements that only these pages hold.
  int32_t OwnRefinements(std::span<const KvPage> pages) const;
  /// What a sequence of `demand` that holds `pages` may still take on its way: it gets nothing for
  /// the shared records that it gives up.
  KvDemand StillTakes(const KvDemand& demand, std::span<const KvPage> pages) const;
  /// Reserves `demand` in place of `reserve`, or does nothing and says false. No outstanding
  /// reserve is ever short of records.
  [[nodiscard]] bool Reserve(const KvDemand& demand, KvDemand& reserve);
  void Unreserve(KvDemand& reserve);
  /// Gives up all records of a sequence that no plan uses any more.
  void Release(std::vector<KvPage>& pages);
  /// The tokens of a prompt, at most `most`, that need not be computed because records hold them.
  int32_t CachedTokens(const PrefixChain& chain, int32_t most) const;
  /// Drops all kept records that no sequence holds.
  void DropKept();
  /// Gives a sequence without pages those of its first `tokens` tokens, some of CachedTokens.
  void Resume(const PrefixChain& chain, int32_t tokens, KvPrecision precision,
              std::vector<KvPage>& pages);
  /// Keeps the records of the first `tokens` tokens, whole chunks or the chain's tail, of a
  /// sequence whose pages are as they are read to compute the next one.
  /// Nothing is kept when the reserve cannot be made larger by what that will keep it from.
  void Publish(const PrefixChain& chain, int32_t tokens, KvPrecision precision,
               std::span<const KvPage> pages, KvDemand& reserve);
  /// To be called once the operations of this plan are all known.
  void EndPlan();

  const KvScheme& scheme() const { return scheme_; }
  const RecordPool& pool() const { return pool_; }
  /// Nothing is held by sequences.
  bool empty() const { return pool_.idle_slabs() == pool_.slabs(); }
  /// Records that sequences hold, each once, and how many sequences hold one.
  int32_t used(KvRecord kind) const {
    return pool_.pinned(kind) - static_cast<int32_t>(retired_[static_cast<size_t>(kind)].size());
  }
  int32_t holders(KvRecord kind, PageId id) const { return pool_.pins(kind, id); }
  int32_t slabs() const { return pool_.slabs(); }
  /// Slabs in which there is nothing, and those in which nothing is held by sequences.
  int32_t empty_slabs() const { return pool_.empty_slabs(); }
  int32_t idle_slabs() const { return pool_.idle_slabs(); }
  /// Pages that one sequence could fill in the scheme's precision, and pages of all sequences'
  /// tables (one that is shared counts for each).
  int32_t pages_total() const { return pages_total_; }
  int32_t pages_used() const { return pages_used_; }
  const PrefixIndex& prefix_index() const { return index_; }
  const KvDemand& reserved() const { return reserved_; }
  /// Checks what is stated of kept and reserved records; for tests. Aborts on a broken statement.
  void CheckKept() const;

 private:
  bool refines() const { return arena_.per_slab[static_cast<size_t>(KvRecord::kRefinement)] > 0; }
  int32_t PagesThatFit(KvPrecision precision) const;
  KvDemand DemandAt(int32_t pages, int32_t complete) const;
  static int32_t FirstPassing(const std::vector<KvPage>& pages);
  KvDemand Missing(const std::vector<KvPage>& pages, int32_t count, int32_t complete,
                   KvPrecision precision) const;
  /// Sums up, over the kinds, the slabs needed for what is missing beyond reusable records and
  /// `room` of each kind.
  int64_t SlabsBeyond(const KvDemand& demand, const std::array<int32_t, 3>& room) const;
  bool FitsNow(const KvDemand& demand) const;
  /// Records of a page at `index` that its sequence will give up, by whether others need them.
  KvDemand PassingOf(const KvPage& page, int32_t index, bool shared) const;
  KvDemand Passing(std::span<const KvPage> pages, bool shared) const;
  /// Drops kept records until `demand` fits beside what is reserved; none if that would not do.
  bool MakeRoom(const KvDemand& demand);
  /// Makes the records that the pages are about to give up theirs alone, where only the prefix
  /// cache has a share in them.
  void Unshare(const std::vector<KvPage>& pages, int32_t complete, KvPrecision precision);
  bool SealsAgain(const KvPage& page, KvTier key, KvTier value) const;
  PageId Take(KvRecord kind);
  void Unpin(KvRecord kind, PageId id);
  void Retire(KvRecord kind, PageId& id);
  void Advance(KvPage& page, int32_t index, int32_t complete, KvPrecision precision,
               std::vector<KvSealOp>& seals);

  const KvScheme scheme_;
  const ArenaCut arena_;
  RecordPool pool_;
  PrefixIndex index_;
  // Given up in this plan, pinned until its end: by their only holder, and others' too.
  std::array<std::vector<PageId>, 3> retired_;
  std::array<std::vector<PageId>, 3> retired_shared_;
  KvDemand reserved_;  // of all sequences
  int32_t pages_total_ = 0;
  int32_t exact_pages_total_ = 0;
  int32_t pages_used_ = 0;
};

}  // namespace asymserve
