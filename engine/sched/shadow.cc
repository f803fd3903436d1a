#include "engine/sched/shadow.h"

#include <algorithm>

#include "engine/base/check.h"

namespace asymserve {
namespace {

/// Slabs in which both copies find every record on their way. With those that hold several records
/// of a kind, some may be left behind in slabs that are nearly empty.
int32_t SlabsFor(const ShadowSpec& spec, const KvScheme& scheme, const ArenaCut& cut) {
  constexpr int32_t kScattered = 2;
  ArenaCut none = cut;
  none.slabs = 0;
  const PageStore sizes(scheme, none);
  KvDemand demand = sizes.PeakDemand(spec.tokens - 1, KvPrecision::kScheme);
  demand += sizes.PeakDemand(spec.tokens - 1, KvPrecision::kExact);
  int32_t slabs = 0;
  for (size_t kind = 0; kind < demand.records.size(); ++kind) {
    const int32_t records = demand.records[kind], per_slab = cut.per_slab[kind];
    if (records == 0) continue;
    slabs += (records + per_slab - 1) / per_slab + (per_slab > 1 ? kScattered : 0);
  }
  return slabs;
}

ArenaCut WithSlabs(ArenaCut cut, size_t slabs) {
  cut.slabs = static_cast<int32_t>(slabs);
  return cut;
}

}  // namespace

std::unique_ptr<Shadow> Shadow::Begin(const ShadowSpec& spec, const KvScheme& scheme,
                                      const ArenaCut& cut, const RecordPool& arena) {
  ASYMSERVE_CHECK(spec.prompt_tokens >= 1 && spec.tokens > spec.prompt_tokens);
  const auto count = static_cast<size_t>(SlabsFor(spec, scheme, cut));
  if (arena.empty().size() < count) return nullptr;
  std::vector<Slab> slabs;
  slabs.reserve(count);
  for (const int32_t index : arena.empty().first(count)) {
    slabs.push_back({index, arena.emptiness(index)});
  }
  return std::unique_ptr<Shadow>(new Shadow(spec, scheme, cut, std::move(slabs)));
}

Shadow::Shadow(const ShadowSpec& spec, const KvScheme& scheme, const ArenaCut& cut,
               std::vector<Slab> slabs)
    : prompt_tokens_(spec.prompt_tokens),
      stored_(spec.tokens - 1),
      cut_(cut),
      slabs_(std::move(slabs)),
      store_(scheme, WithSlabs(cut, slabs_.size())) {}

bool Shadow::HasRecords(const RecordPool& arena) const {
  return std::all_of(slabs_.begin(), slabs_.end(), [&](const Slab& slab) {
    return arena.emptiness(slab.index) == slab.emptiness;
  });
}

bool Shadow::Prepare(Copy& copy, int32_t count, std::vector<KvSealOp>& seals) {
  const KvScheme& scheme = store_.scheme();
  const bool prefill = computed_ < prompt_tokens_;
  const int32_t chunk_start = computed_ / scheme.chunk_tokens * scheme.chunk_tokens;
  const int32_t complete = (prefill ? chunk_start : computed_) / scheme.page_tokens;
  const auto held = static_cast<int64_t>(copy.pages.size()) * scheme.page_tokens;
  const bool ages = scheme.seals(copy.precision) && complete != copy.complete;
  if (computed_ + count <= held && !ages) return true;
  copy.complete = complete;
  return store_.Prepare(copy.pages, computed_ + count, complete, seals, copy.precision);
}

std::optional<ShadowStep> Shadow::Plan(int32_t tokens, int32_t rows) {
  const KvScheme& scheme = store_.scheme();
  const bool prefill = computed_ < prompt_tokens_;
  const int32_t grain = prefill ? scheme.chunk_tokens : scheme.page_tokens;
  const int32_t end = prefill ? prompt_tokens_ : stored_;
  int32_t count = std::min({tokens / 2, end - computed_, grain - computed_ % grain});
  // The first token whose logits gave one of the output.
  const int32_t first_row = std::max(computed_, prompt_tokens_ - 1);
  count = std::min(count, first_row - computed_ + rows / 2);
  ShadowStep step;
  if (count <= 0) return step;
  const bool found = Prepare(scheme_, count, step.seals) && Prepare(exact_, count, step.seals);
  store_.EndPlan();
  if (!found) return std::nullopt;
  for (KvSealOp& op : step.seals) {
    op.near = Place(KvRecord::kNear, op.near);
    op.base = Place(KvRecord::kBase, op.base);
    op.refinement = Place(KvRecord::kRefinement, op.refinement);
  }
  step.begin = computed_;
  step.count = count;
  computed_ += count;
  step.rows = std::max(computed_ - first_row, 0);
  step.scheme_pages = Place(scheme_);
  step.exact_pages = Place(exact_);
  return step;
}

PageId Shadow::Place(KvRecord kind, PageId id) const {
  if (id == kNoPage) return kNoPage;
  const int32_t per_slab = cut_.per_slab[static_cast<size_t>(kind)];
  const Slab& slab = slabs_[static_cast<size_t>(Index(id) / per_slab)];
  return PageId{slab.index * per_slab + Index(id) % per_slab};
}

std::vector<KvPage> Shadow::Place(const Copy& copy) const {
  const int32_t page_tokens = store_.scheme().page_tokens;
  const int32_t count = (computed_ + page_tokens - 1) / page_tokens;
  std::vector<KvPage> pages(copy.pages.begin(), copy.pages.begin() + count);
  for (KvPage& page : pages) {
    page.near = Place(KvRecord::kNear, page.near);
    page.base = Place(KvRecord::kBase, page.base);
    page.refinement = Place(KvRecord::kRefinement, page.refinement);
    page.exact_values = Place(KvRecord::kNear, page.exact_values);
  }
  return pages;
}

}  // namespace asymserve
