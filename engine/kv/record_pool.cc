#include "engine/kv/record_pool.h"

#include <algorithm>

#include "engine/base/check.h"

namespace asymserve {
namespace {

constexpr KvRecord kKinds[] = {KvRecord::kNear, KvRecord::kBase, KvRecord::kRefinement};

/// Records of each kind that the layout has.
std::vector<int64_t> RecordSizes(const KvLayout& layout) {
  std::vector<int64_t> sizes;
  for (const KvRecord kind : kKinds) {
    if (layout.record_bytes(kind) > 0) sizes.push_back(layout.record_bytes(kind));
  }
  return sizes;
}

/// Parts of a slab that hold no record, summed over the kinds.
double Lost(int64_t slab_bytes, const std::vector<int64_t>& sizes) {
  double lost = 0;
  for (const int64_t bytes : sizes) {
    lost += static_cast<double>(slab_bytes % bytes) / static_cast<double>(slab_bytes);
  }
  return lost;
}

/// As small as the largest record allows, but for rounding up to whole records of the kind by which
/// least is lost.
int64_t SlabBytes(const std::vector<int64_t>& sizes) {
  const int64_t largest = *std::max_element(sizes.begin(), sizes.end());
  int64_t best = largest;
  for (const int64_t bytes : sizes) {
    const int64_t rounded = (largest + bytes - 1) / bytes * bytes;
    if (Lost(rounded, sizes) < Lost(best, sizes)) best = rounded;
  }
  return best;
}

}  // namespace

ArenaCut::ArenaCut(const KvLayout& layout, int64_t arena_bytes) {
  const std::vector<int64_t> sizes = RecordSizes(layout);
  slab_bytes = SlabBytes(sizes);
  const int64_t most_per_slab = slab_bytes / *std::min_element(sizes.begin(), sizes.end());
  slabs = static_cast<int32_t>(std::min(arena_bytes / slab_bytes, INT32_MAX / most_per_slab));
  for (const KvRecord kind : kKinds) {
    const int64_t bytes = layout.record_bytes(kind);
    if (bytes > 0) per_slab[static_cast<size_t>(kind)] = static_cast<int32_t>(slab_bytes / bytes);
  }
}

ArenaCut ArenaCut::Pages(int32_t pages) {
  ArenaCut cut;
  cut.slab_bytes = 1;
  cut.slabs = pages;
  cut.per_slab[static_cast<size_t>(KvRecord::kNear)] = 1;
  return cut;
}

int64_t ArenaBytesFor(const KvLayout& layout, KvRecord kind, int32_t records) {
  const ArenaCut cut(layout, 0);
  const int32_t per_slab = cut.per_slab[static_cast<size_t>(kind)];
  ASYMSERVE_CHECK(per_slab > 0);
  return (records + per_slab - 1) / per_slab * cut.slab_bytes;
}

RecordPool::RecordPool(const ArenaCut& cut)
    : cut_(cut), slabs_(static_cast<size_t>(cut.slabs)), empty_(static_cast<size_t>(cut.slabs)) {
  for (int32_t i = 0; i < cut.slabs; ++i) empty_[static_cast<size_t>(i)] = cut.slabs - 1 - i;
  for (const KvRecord kind : kKinds) {
    const auto k = static_cast<size_t>(kind);
    by_used_[k].resize(static_cast<size_t>(std::max(1, cut.per_slab[k])));
  }
}

void RecordPool::List(KvRecord kind, int32_t index) {
  Slab& slab = slabs_[static_cast<size_t>(index)];
  if (slab.used == cut_.per_slab[static_cast<size_t>(kind)]) return;
  auto& list = by_used_[static_cast<size_t>(kind)][static_cast<size_t>(slab.used)];
  slab.place = list.size();
  list.push_back(index);
}

void RecordPool::Unlist(KvRecord kind, int32_t index) {
  const Slab& slab = slabs_[static_cast<size_t>(index)];
  if (slab.used == cut_.per_slab[static_cast<size_t>(kind)]) return;
  auto& list = by_used_[static_cast<size_t>(kind)][static_cast<size_t>(slab.used)];
  slabs_[static_cast<size_t>(list.back())].place = slab.place;
  list[slab.place] = list.back();
  list.pop_back();
}

int32_t RecordPool::FullestWithRoom(KvRecord kind) const {
  const auto& lists = by_used_[static_cast<size_t>(kind)];
  for (auto list = lists.rbegin(); list != lists.rend(); ++list) {
    if (!list->empty()) return list->back();
  }
  return -1;
}

PageId RecordPool::Allocate(KvRecord kind) {
  const auto k = static_cast<size_t>(kind);
  const int32_t per_slab = cut_.per_slab[k];
  ASYMSERVE_CHECK(per_slab > 0);
  int32_t index = FullestWithRoom(kind);
  if (index < 0) {
    if (empty_.empty()) return kNoPage;
    index = empty_.back();
    empty_.pop_back();
    ++slabs_of_[k];
    Slab& taken = slabs_[static_cast<size_t>(index)];
    taken.records.assign(static_cast<size_t>(per_slab), Use{});
    ++taken.taken;
  } else {
    Unlist(kind, index);
  }
  Slab& slab = slabs_[static_cast<size_t>(index)];
  const auto free = std::find_if(slab.records.begin(), slab.records.end(),
                                 [](const Use& use) { return use.pins + use.keeps == 0; });
  ++used_[k];
  ++slab.used;
  List(kind, index);
  free->pins = 1;
  const PageId id{index * per_slab + static_cast<int32_t>(free - slab.records.begin())};
  CountPinned(kind, id, 1);
  return id;
}

const RecordPool::Use& RecordPool::UseOf(KvRecord kind, PageId id) const {
  const int32_t per_slab = cut_.per_slab[static_cast<size_t>(kind)];
  ASYMSERVE_CHECK(per_slab > 0 && Index(id) >= 0 && Index(id) < cut_.records(kind));
  const Slab& slab = slabs_[static_cast<size_t>(Index(id) / per_slab)];
  ASYMSERVE_CHECK(static_cast<int32_t>(slab.records.size()) == per_slab);
  const Use& use = slab.records[static_cast<size_t>(Index(id) % per_slab)];
  ASYMSERVE_CHECK(use.pins + use.keeps > 0);
  return use;
}

void RecordPool::CountPinned(KvRecord kind, PageId id, int32_t change) {
  const auto k = static_cast<size_t>(kind);
  Slab& slab = SlabOf(kind, id);
  pinned_slabs_[k] -= slab.pinned > 0 ? 1 : 0;
  pinned_[k] += change;
  slab.pinned += change;
  pinned_slabs_[k] += slab.pinned > 0 ? 1 : 0;
}

void RecordPool::Pin(KvRecord kind, PageId id) {
  if (UseOf(kind, id).pins++ == 0) CountPinned(kind, id, 1);
}

bool RecordPool::Release(KvRecord kind, PageId id) {
  Use& use = UseOf(kind, id);
  ASYMSERVE_CHECK(use.pins > 0);
  if (--use.pins > 0) return false;
  CountPinned(kind, id, -1);
  if (use.keeps > 0) return true;
  Free(kind, id);
  return false;
}

void RecordPool::Keep(KvRecord kind, PageId id) {
  ++UseOf(kind, id).keeps;
}

void RecordPool::Drop(KvRecord kind, PageId id) {
  Use& use = UseOf(kind, id);
  ASYMSERVE_CHECK(use.keeps > 0);
  if (--use.keeps == 0 && use.pins == 0) Free(kind, id);
}

void RecordPool::Free(KvRecord kind, PageId id) {
  const auto k = static_cast<size_t>(kind);
  const int32_t index = Index(id) / cut_.per_slab[k];
  Slab& slab = slabs_[static_cast<size_t>(index)];
  --used_[k];
  Unlist(kind, index);
  if (--slab.used > 0) return List(kind, index);
  empty_.push_back(index);
  --slabs_of_[k];
  slab.records.clear();
}

}  // namespace asymserve
