#include "engine/kv/capacity.h"

#include <algorithm>

#include "engine/base/check.h"
#include "engine/kv/page_tier.h"

namespace asymserve {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

/// Records of a sequence of `pages` pages, of which `complete` count as complete: what TierOf says
/// of each page, in closed form.
KvRecords RecordsAt(const KvScheme& scheme, bool refines, int64_t pages, int64_t complete) {
  KvRecords records;
  const auto sealed = [&](const KvWindow& window) {
    const int64_t end = complete / window.block_pages * window.block_pages - window.recent_pages;
    return std::max<int64_t>(end, scheme.sink_pages);
  };
  const int64_t both = std::min(sealed(scheme.key_window), sealed(scheme.value_window));
  const int64_t either = std::max(sealed(scheme.key_window), sealed(scheme.value_window));
  records[KvRecord::kNear] = pages;
  if (!scheme.seals() || either <= scheme.sink_pages) return records;
  records[KvRecord::kNear] = pages - (both - scheme.sink_pages);
  records[KvRecord::kBase] = either - scheme.sink_pages;
  if (refines) {
    records[KvRecord::kRefinement] =
        either - std::max<int64_t>(both - scheme.fresh_pages, scheme.sink_pages);
  }
  return records;
}

void Include(const KvRecords& records, KvRecords& most) {
  for (size_t k = 0; k < most.count.size(); ++k) {
    most.count[k] = std::max(most.count[k], records.count[k]);
  }
}

}  // namespace

KvDemandModel::KvDemandModel(const KvLayout& layout, const KvScheme& scheme, const KvLoad& load) {
  ASYMSERVE_CHECK(load.prompt_tokens >= 1 && load.output_tokens >= 0 && load.step_tokens >= 1);
  const bool refines = layout.record_bytes(KvRecord::kRefinement) > 0;
  const int64_t pages = CeilDivide(load.tokens(), scheme.page_tokens);
  const int64_t chunk_pages = scheme.chunk_tokens / scheme.page_tokens;
  // Sealing in blocks of pages makes the number of near ones go up and down.
  const int64_t block = std::max(scheme.key_window.block_pages, scheme.value_window.block_pages);
  for (int64_t held = std::max<int64_t>(1, pages - block); held <= pages; ++held) {
    Include(RecordsAt(scheme, refines, held, held - 1), decoding_);
  }
  // Near records are most numerous at the end of a chunk, and later chunks hold more of the rest.
  peak_ = decoding_;
  const int64_t prompt_pages = CeilDivide(load.prompt_tokens, scheme.page_tokens);
  const int64_t last_chunk = (load.prompt_tokens - 1) / scheme.chunk_tokens;
  for (int64_t chunk = std::max<int64_t>(0, last_chunk - block); chunk <= last_chunk; ++chunk) {
    const int64_t complete = chunk * chunk_pages;
    const int64_t held = std::min(prompt_pages, complete + chunk_pages);
    Include(RecordsAt(scheme, refines, held, complete), peak_);
  }
  prefilling_ = CeilDivide(load.step_tokens, scheme.chunk_tokens) + 1;
}

KvRecords KvDemandModel::Together(int64_t sequences) const {
  KvRecords records;
  const int64_t prefilling = std::min(prefilling_, sequences);
  for (size_t k = 0; k < records.count.size(); ++k) {
    records.count[k] = decoding_.count[k] * (sequences - prefilling) + peak_.count[k] * prefilling;
  }
  return records;
}

int64_t KvDemandModel::SlabsTogether(const ArenaCut& cut, int64_t sequences) const {
  constexpr int64_t kWholeSlabs = 128;
  const KvRecords records = Together(sequences);
  int64_t slabs = SlabsFor(cut, records);
  for (size_t k = 0; sequences > 1 && k < records.count.size(); ++k) {
    if (cut.per_slab[k] < 2) continue;
    slabs += CeilDivide(records.count[k], kWholeSlabs * cut.per_slab[k]);
  }
  return slabs;
}

int64_t SlabsFor(const ArenaCut& cut, const KvRecords& records) {
  int64_t slabs = 0;
  for (size_t k = 0; k < records.count.size(); ++k) {
    if (records.count[k] == 0) continue;
    ASYMSERVE_CHECK(cut.per_slab[k] > 0);
    slabs += CeilDivide(records.count[k], cut.per_slab[k]);
  }
  return slabs;
}

int64_t TokensAlone(const KvLayout& layout, const KvScheme& scheme, const ArenaCut& cut) {
  return scheme.page_tokens * LargestThatFits([&](int64_t pages) {
           const KvLoad load = {.prompt_tokens = pages * scheme.page_tokens};
           return SlabsFor(cut, KvDemandModel(layout, scheme, load).peak()) <= cut.slabs;
         });
}

KvCapacity CapacityOf(const KvShape& shape, const KvScheme& scheme, int64_t arena_bytes,
                      const KvLoad& load) {
  const KvLayout layout(shape, scheme);
  const ArenaCut cut(layout, arena_bytes);
  const KvDemandModel demand(layout, scheme, load);
  const int64_t sequences =
      LargestThatFits([&](int64_t count) { return demand.SlabsTogether(cut, count) <= cut.slabs; });
  return {.tokens = TokensAlone(layout, scheme, cut), .sequences = sequences};
}

}  // namespace asymserve
