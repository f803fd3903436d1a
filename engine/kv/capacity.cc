#include "engine/kv/capacity.h"

#include "engine/kv/layout.h"
#include "engine/kv/page_store.h"

namespace asymserve {
namespace {

/// Slabs that `sequences` sequences of one demand bind at once.
int64_t SlabsFor(const KvDemand& demand, const ArenaCut& cut, int64_t sequences) {
  int64_t slabs = 0;
  for (size_t kind = 0; kind < demand.records.size(); ++kind) {
    const int64_t records = demand.records[kind] * sequences;
    if (records > 0) slabs += (records + cut.per_slab[kind] - 1) / cut.per_slab[kind];
  }
  return slabs;
}

}  // namespace

KvCapacity CapacityOf(const KvShape& shape, const KvScheme& scheme, int64_t arena_bytes,
                      int64_t sequence_tokens) {
  const ArenaCut cut(KvLayout(shape, scheme), arena_bytes);
  const PageStore store(scheme, cut);
  const KvDemand demand = store.PeakDemand(sequence_tokens);
  int64_t fits = 0;
  int64_t too_many = 1;
  while (SlabsFor(demand, cut, too_many) <= cut.slabs) {
    fits = too_many;
    too_many *= 2;
  }
  while (fits + 1 < too_many) {
    const int64_t middle = (fits + too_many) / 2;
    (SlabsFor(demand, cut, middle) <= cut.slabs ? fits : too_many) = middle;
  }
  return {.tokens = store.MaxTokens(), .sequences = fits};
}

}  // namespace asymserve
