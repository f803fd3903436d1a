#include "engine/kv/page_store.h"

#include <algorithm>

#include "engine/base/check.h"

namespace asymserve {
namespace {

constexpr KvRecord kKinds[] = {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement};

int32_t CeilDivide(int64_t a, int64_t b) {
  return static_cast<int32_t>((a + b - 1) / b);
}

}  // namespace

KvDemand Beyond(KvDemand demand, std::span<const KvPage> pages) {
  for (const KvPage& page : pages) {
    demand.records[0] -= (page.near != kNoPage ? 1 : 0) + (page.exact_values != kNoPage ? 1 : 0);
    demand.records[1] -= page.base != kNoPage ? 1 : 0;
    demand.records[2] -= page.refinement != kNoPage ? 1 : 0;
  }
  for (int32_t& records : demand.records) records = std::max(records, 0);
  return demand;
}

PageStore::PageStore(const KvScheme& scheme, const ArenaCut& arena)
    : scheme_(scheme), arena_(arena), pool_(arena), index_(scheme) {
  pages_total_ = PagesThatFit(KvPrecision::kScheme);
  exact_pages_total_ = PagesThatFit(KvPrecision::kExact);
}

int32_t PageStore::PagesThatFit(KvPrecision precision) const {
  int64_t fits = 0;
  int64_t too_many = int64_t{arena_.records(KvRecord::kBase)} + arena_.records(KvRecord::kNear) + 1;
  while (fits + 1 < too_many) {
    const int64_t middle = (fits + too_many) / 2;
    (FitsAlone(PeakDemand(middle * scheme_.page_tokens, precision)) ? fits : too_many) = middle;
  }
  return static_cast<int32_t>(fits);
}

/// Records of a sequence of `pages` pages of which `complete` count as complete, by arithmetic.
KvDemand PageStore::DemandAt(int32_t pages, int32_t complete) const {
  KvDemand demand;
  const auto sealed = [&](const KvWindow& window) {
    return std::max(complete / window.block_pages * window.block_pages - window.recent_pages,
                    scheme_.sink_pages);
  };
  const int32_t first = std::min(sealed(scheme_.key_window), sealed(scheme_.value_window));
  const int32_t last = std::max(sealed(scheme_.key_window), sealed(scheme_.value_window));
  const bool seals = scheme_.seals() && last > scheme_.sink_pages;
  demand.records[0] = seals ? pages - (first - scheme_.sink_pages) : pages;
  if (!seals) return demand;
  demand.records[1] = last - scheme_.sink_pages;
  if (refines()) {
    demand.records[2] = last - std::max(first - scheme_.fresh_pages, scheme_.sink_pages);
  }
  return demand;
}

KvDemand PageStore::PeakDemand(int64_t tokens, KvPrecision precision) const {
  const int32_t pages = CeilDivide(tokens, scheme_.page_tokens);
  const int32_t chunk_pages = CeilDivide(scheme_.chunk_tokens, scheme_.page_tokens);
  KvDemand peak;
  if (precision == KvPrecision::kExact) {
    peak.records[0] = pages * scheme_.near_records(precision);
    return peak;
  }
  const auto include = [&](int32_t held, int32_t complete) {
    const KvDemand demand = DemandAt(held, complete);
    for (size_t k = 0; k < peak.records.size(); ++k) {
      peak.records[k] = std::max(peak.records[k], demand.records[k]);
    }
  };
  // Decode: sealing in blocks of pages makes the number of near ones go up and down.
  const int32_t block = std::max(scheme_.key_window.block_pages, scheme_.value_window.block_pages);
  for (int32_t held = std::max(1, pages - block); held <= pages; ++held) include(held, held - 1);
  // Prefill: near records are most numerous at the end of a chunk.
  const auto last_chunk = static_cast<int32_t>((tokens - 1) / scheme_.chunk_tokens);
  for (int32_t chunk = std::max(0, last_chunk - block); chunk <= last_chunk; ++chunk) {
    const auto complete =
        static_cast<int32_t>(int64_t{chunk} * scheme_.chunk_tokens / scheme_.page_tokens);
    include(std::min(pages, complete + chunk_pages), complete);
  }
  return peak;
}

bool PageStore::FitsAlone(const KvDemand& demand) const {
  int64_t slabs = 0;
  for (const KvRecord kind : kKinds) {
    const int32_t count = demand.records[static_cast<size_t>(kind)];
    if (count > 0) slabs += CeilDivide(count, arena_.per_slab[static_cast<size_t>(kind)]);
  }
  return slabs <= pool_.slabs();
}

int64_t PageStore::SlabsBeyond(const KvDemand& demand, const std::array<int32_t, 3>& room) const {
  int64_t slabs = 0;
  for (size_t k = 0; k < room.size(); ++k) {
    const auto missing = demand.records[k] - static_cast<int32_t>(retired_[k].size()) - room[k];
    if (missing > 0) slabs += CeilDivide(missing, arena_.per_slab[k]);
  }
  return slabs;
}

bool PageStore::FitsNow(const KvDemand& demand) const {
  std::array<int32_t, 3> room = {};
  for (const KvRecord kind : kKinds) room[static_cast<size_t>(kind)] = pool_.partial_room(kind);
  return SlabsBeyond(demand, room) <= pool_.empty_slabs();
}

bool PageStore::Fits(const KvDemand& wanted) const {
  KvDemand demand = wanted;
  demand += reserved_;
  std::array<int32_t, 3> room = {};
  for (const KvRecord kind : kKinds) {
    room[static_cast<size_t>(kind)] = pool_.room_beside_pinned(kind);
  }
  return SlabsBeyond(demand, room) <= pool_.idle_slabs();
}

bool PageStore::MakeRoom(const KvDemand& wanted) {
  KvDemand demand = wanted;
  demand += reserved_;
  if (FitsNow(demand)) return true;
  if (!Fits(wanted)) return false;
  while (!FitsNow(demand)) {
    if (!index_.EvictOldest(pool_)) return false;
  }
  return true;
}

KvDemand PageStore::PassingOf(const KvPage& page, int32_t index, bool shared) const {
  KvDemand passing;
  const auto count = [&](KvRecord kind, PageId id) {
    if (id == kNoPage || pool_.shared(kind, id) != shared) return;
    ++passing.records[static_cast<size_t>(kind)];
  };
  if (!page.exact && scheme_.seals() && index >= scheme_.sink_pages) {
    count(KvRecord::kNear, page.near);
    count(KvRecord::kRefinement, page.refinement);
    // One tensor is still to be sealed: into another record, if others read this one.
    const bool half = page.near != kNoPage && page.base != kNoPage;
    if (half) count(KvRecord::kBase, page.base);
  }
  return passing;
}

KvDemand PageStore::Passing(std::span<const KvPage> pages, bool shared) const {
  KvDemand passing;
  for (size_t i = 0; i < pages.size(); ++i) {
    passing += PassingOf(pages[i], static_cast<int32_t>(i), shared);
  }
  return passing;
}

KvDemand PageStore::StillTakes(const KvDemand& demand, std::span<const KvPage> pages) const {
  KvDemand still = Beyond(demand, pages);
  still += Passing(pages, /*shared=*/true);
  return still;
}

bool PageStore::Reserve(const KvDemand& demand, KvDemand& reserve) {
  KvDemand more = demand;
  more -= reserve;
  if (!MakeRoom(more)) return false;
  reserved_ += more;
  reserve = demand;
  return true;
}

void PageStore::Unreserve(KvDemand& reserve) {
  reserved_ -= reserve;
  reserve = {};
}

void PageStore::CheckKept() const {
  index_.CheckInvariants(pool_);
  for (const int32_t records : reserved_.records) ASYMSERVE_CHECK(records >= 0);
  ASYMSERVE_CHECK(FitsNow(reserved_));
}

/// Pages before this index are those of the sink and aged ones, which have nothing left to give up:
/// no growth changes them.
int32_t PageStore::FirstPassing(const std::vector<KvPage>& pages) {
  const auto settled = [](const KvPage& page) {
    return page.key_tier == KvTier::kAged && page.value_tier == KvTier::kAged &&
           page.near == kNoPage && page.refinement == kNoPage;
  };
  auto first = static_cast<int32_t>(pages.size());
  while (first > 0 && !settled(pages[static_cast<size_t>(first) - 1])) --first;
  return first;
}

/// What Prepare would take from the store. Counts no record that it would itself give up first
/// for another kind.
KvDemand PageStore::Missing(const std::vector<KvPage>& pages, int32_t count, int32_t complete,
                            KvPrecision precision) const {
  KvDemand missing;
  const auto held = static_cast<int32_t>(pages.size());
  missing.records[0] = std::max(0, count - held) * scheme_.near_records(precision);
  if (!scheme_.seals(precision)) return missing;
  for (int32_t i = FirstPassing(pages); i < held; ++i) {
    const KvPage& page = pages[static_cast<size_t>(i)];
    const KvTier key = TierOf(scheme_, KvTensor::kKey, i, complete, precision);
    const KvTier value = TierOf(scheme_, KvTensor::kValue, i, complete, precision);
    const bool sealed = key != KvTier::kNear || value != KvTier::kNear;
    const bool fresh = key == KvTier::kFresh || value == KvTier::kFresh;
    if (sealed && (page.base == kNoPage || SealsAgain(page, key, value))) ++missing.records[1];
    if (refines() && fresh && page.base == kNoPage) ++missing.records[2];
    if (refines() && !fresh && page.refinement != kNoPage &&
        !pool_.shared(KvRecord::kRefinement, page.refinement)) {
      --missing.records[2];
    }
    if (key != KvTier::kNear && value != KvTier::kNear && page.near != kNoPage &&
        !pool_.shared(KvRecord::kNear, page.near)) {
      --missing.records[0];
    }
  }
  return missing;
}

/// Whether the second of a page's tensors is to be sealed into a base record that others read: it
/// gets a record of its own, into which both are sealed.
bool PageStore::SealsAgain(const KvPage& page, KvTier key, KvTier value) const {
  const bool seals = (key != KvTier::kNear && page.key_tier == KvTier::kNear) ||
                     (value != KvTier::kNear && page.value_tier == KvTier::kNear);
  return seals && page.base != kNoPage && pool_.shared(KvRecord::kBase, page.base);
}

void PageStore::Unshare(const std::vector<KvPage>& pages, int32_t complete, KvPrecision precision) {
  const auto forget = [&](KvRecord kind, PageId id) {
    if (id != kNoPage && pool_.pins(kind, id) == 1) index_.Forget(kind, id, pool_);
  };
  for (int32_t i = FirstPassing(pages); i < std::ssize(pages); ++i) {
    const KvPage& page = pages[static_cast<size_t>(i)];
    const KvTier key = TierOf(scheme_, KvTensor::kKey, i, complete, precision);
    const KvTier value = TierOf(scheme_, KvTensor::kValue, i, complete, precision);
    if (SealsAgain(page, key, value)) forget(KvRecord::kBase, page.base);
    if (key != KvTier::kNear && value != KvTier::kNear) forget(KvRecord::kNear, page.near);
    if (key != KvTier::kFresh && value != KvTier::kFresh) {
      forget(KvRecord::kRefinement, page.refinement);
    }
  }
}

bool PageStore::Prepare(std::vector<KvPage>& pages, int64_t tokens, int32_t complete,
                        std::vector<KvSealOp>& seals, KvPrecision precision, KvDemand* reserve) {
  const int32_t count = CeilDivide(tokens, scheme_.page_tokens);
  // Of the reserve is left what is not taken; what is missing beyond it is taken from the rest.
  KvDemand taken_of_reserve;
  const auto make_room = [&] {
    KvDemand missing = Missing(pages, count, complete, precision);
    for (size_t k = 0; reserve != nullptr && k < missing.records.size(); ++k) {
      taken_of_reserve.records[k] = std::min(missing.records[k], reserve->records[k]);
    }
    missing -= taken_of_reserve;
    return MakeRoom(missing);
  };
  if (!make_room()) {
    if (!scheme_.seals(precision)) return false;
    Unshare(pages, complete, precision);
    if (!make_room()) return false;
  }
  if (reserve != nullptr) *reserve -= taken_of_reserve;
  reserved_ -= taken_of_reserve;
  if (scheme_.seals(precision)) {
    for (int32_t i = FirstPassing(pages); i < std::ssize(pages); ++i) {
      Advance(pages[static_cast<size_t>(i)], i, complete, precision, seals);
    }
  }
  for (auto i = static_cast<int32_t>(pages.size()); i < count; ++i) {
    KvPage page = {.near = Take(KvRecord::kNear), .exact = precision == KvPrecision::kExact};
    if (scheme_.near_records(precision) == 2) page.exact_values = Take(KvRecord::kNear);
    pages.push_back(page);
    ++pages_used_;
  }
  return true;
}

void PageStore::Advance(KvPage& page, int32_t index, int32_t complete, KvPrecision precision,
                        std::vector<KvSealOp>& seals) {
  const KvTier key = TierOf(scheme_, KvTensor::kKey, index, complete, precision);
  const KvTier value = TierOf(scheme_, KvTensor::kValue, index, complete, precision);
  KvSealOp op;
  if (SealsAgain(page, key, value)) {
    Retire(KvRecord::kBase, page.base);
    page.key_tier = KvTier::kNear;
    page.value_tier = KvTier::kNear;
  }
  op.keys = key != KvTier::kNear && page.key_tier == KvTier::kNear;
  op.values = value != KvTier::kNear && page.value_tier == KvTier::kNear;
  const bool fresh = key == KvTier::kFresh || value == KvTier::kFresh;
  if (op.keys || op.values) {
    if (page.base == kNoPage) {
      page.base = Take(KvRecord::kBase);
      if (refines() && fresh) page.refinement = Take(KvRecord::kRefinement);
    }
    op.near = page.near;
    op.base = page.base;
    op.refinement = page.refinement;
    op.page = index;
    seals.push_back(op);
  }
  page.key_tier = key;
  page.value_tier = value;
  if (key != KvTier::kNear && value != KvTier::kNear) Retire(KvRecord::kNear, page.near);
  if (!fresh) Retire(KvRecord::kRefinement, page.refinement);
}

PageId PageStore::Take(KvRecord kind) {
  std::vector<PageId>& retired = retired_[static_cast<size_t>(kind)];
  // Slabs that are in use are filled first, so that those of retired records may run empty.
  if (!retired.empty() && pool_.partial_room(kind) == 0) {
    const PageId id = retired.back();
    retired.pop_back();
    return id;
  }
  const PageId id = pool_.Allocate(kind);
  ASYMSERVE_CHECK(id != kNoPage);
  return id;
}

void PageStore::Retire(KvRecord kind, PageId& id) {
  if (id == kNoPage) return;
  auto& retired = pool_.shared(kind, id) ? retired_shared_ : retired_;
  retired[static_cast<size_t>(kind)].push_back(id);
  id = kNoPage;
}

void PageStore::Unpin(KvRecord kind, PageId id) {
  if (id != kNoPage && pool_.Release(kind, id)) index_.OnUnpinned(kind, id);
}

void PageStore::FreeRefinements(std::vector<KvPage>& pages) {
  for (KvPage& page : pages) {
    if (page.key_tier == KvTier::kFresh) page.key_tier = KvTier::kAged;
    if (page.value_tier == KvTier::kFresh) page.value_tier = KvTier::kAged;
    Unpin(KvRecord::kRefinement, page.refinement);
    page.refinement = kNoPage;
  }
}

int32_t PageStore::OwnRefinements(std::span<const KvPage> pages) const {
  return static_cast<int32_t>(std::count_if(pages.begin(), pages.end(), [&](const KvPage& page) {
    return page.refinement != kNoPage && pool_.pins(KvRecord::kRefinement, page.refinement) == 1;
  }));
}

void PageStore::Release(std::vector<KvPage>& pages) {
  for (const KvPage& page : pages) {
    Unpin(KvRecord::kNear, page.near);
    Unpin(KvRecord::kBase, page.base);
    Unpin(KvRecord::kRefinement, page.refinement);
    Unpin(KvRecord::kNear, page.exact_values);
  }
  pages_used_ -= static_cast<int32_t>(pages.size());
  pages.clear();
}

void PageStore::DropKept() {
  while (index_.EvictOldest(pool_)) {
  }
}

int32_t PageStore::CachedTokens(const PrefixChain& chain, int32_t most) const {
  const auto chunks = static_cast<size_t>(most / scheme_.chunk_tokens);
  const std::span<const PrefixHash> begin(chain.chunks.data(),
                                          std::min(chunks, chain.chunks.size()));
  const int32_t matched = index_.Match(begin) * scheme_.chunk_tokens;
  const bool tail =
      chain.tail_tokens > matched && chain.tail_tokens <= most && index_.Resumes(chain.tail);
  return tail ? chain.tail_tokens : matched;
}

void PageStore::Resume(const PrefixChain& chain, int32_t tokens, KvPrecision precision,
                       std::vector<KvPage>& pages) {
  const auto chunks = static_cast<size_t>(tokens / scheme_.chunk_tokens);
  const bool tail = tokens % scheme_.chunk_tokens != 0;
  index_.Resume(tail ? chain.tail : chain.chunks[chunks - 1], tokens, precision, pool_, pages);
  pages_used_ += static_cast<int32_t>(pages.size());
}

void PageStore::Publish(const PrefixChain& chain, int32_t tokens, KvPrecision precision,
                        std::span<const KvPage> pages, KvDemand& reserve) {
  if (reserve != KvDemand{}) {
    KvDemand demand = reserve;
    demand += Passing(pages, /*shared=*/false);
    if (!Reserve(demand, reserve)) return;
  }
  const auto chunks = static_cast<size_t>(tokens / scheme_.chunk_tokens);
  const bool tail = tokens % scheme_.chunk_tokens != 0;
  const PrefixHash& hash = tail ? chain.tail : chain.chunks[chunks - 1];
  const size_t before = tail ? chunks : chunks - 1;
  index_.Publish(before == 0 ? nullptr : &chain.chunks[before - 1], hash, tokens, pages, precision,
                 pool_);
}

void PageStore::EndPlan() {
  for (const KvRecord kind : kKinds) {
    for (auto* lists : {&retired_, &retired_shared_}) {
      std::vector<PageId>& retired = (*lists)[static_cast<size_t>(kind)];
      for (const PageId id : retired) Unpin(kind, id);
      retired.clear();
    }
  }
}

}  // namespace asymserve
