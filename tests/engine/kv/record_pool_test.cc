#include "engine/kv/record_pool.h"

#include <gtest/gtest.h>

#include <random>
#include <set>
#include <utility>
#include <vector>

namespace asymserve {
namespace {

KvLayout FitLayout() {
  constexpr KvShape kShape = {.layers = 2, .kv_heads = 3, .head_size = 64};
  return {kShape, *NamedKvScheme("fit-2/1", kShape)};
}

TEST(ArenaCutTest, CutsSlabsOfOneLargestRecordRoundedWhereThatLosesLeast) {
  const KvLayout layout = FitLayout();
  const int64_t near = layout.record_bytes(KvRecord::kNear);
  const int64_t base = layout.record_bytes(KvRecord::kBase);
  ArenaCut cut(layout, 0);
  EXPECT_EQ(cut.per_slab[0], 1);
  EXPECT_EQ(cut.per_slab[1], cut.slab_bytes / base);
  EXPECT_EQ(cut.per_slab[2], 0);
  EXPECT_EQ(cut.slab_bytes, (near + base - 1) / base * base);  // no base record is cut off
  EXPECT_LT(cut.slab_bytes, near + base);
  EXPECT_EQ(ArenaCut(layout, 10 * cut.slab_bytes + 5).slabs, 10);
  EXPECT_GE(ArenaCut(layout, ArenaBytesFor(layout, KvRecord::kNear, 5)).records(KvRecord::kNear),
            5);

  constexpr KvShape kShape = {.layers = 2, .kv_heads = 3, .head_size = 64};
  const KvLayout halves(kShape, *NamedKvScheme("kivi-2", kShape));
  cut = ArenaCut(halves, 0);
  EXPECT_EQ(cut.slab_bytes, halves.record_bytes(KvRecord::kNear));  // rounding would lose more
  EXPECT_EQ(cut.per_slab[1], cut.slab_bytes / halves.record_bytes(KvRecord::kBase));
}

TEST(RecordPoolTest, RandomUseNeverOverlapsAndEverySlabComesBack) {
  const KvLayout layout = FitLayout();
  const ArenaCut cut(layout, ArenaBytesFor(layout, KvRecord::kNear, 28));
  RecordPool pool(cut);
  std::mt19937 random(1);
  std::vector<std::pair<KvRecord, PageId>> held;
  for (int step = 0; step < 20000; ++step) {
    const bool release = !held.empty() && random() % 100 < (step % 2000 < 1000 ? 40u : 60u);
    if (release) {
      std::swap(held[random() % held.size()], held.back());
      pool.Release(held.back().first, held.back().second);
      held.pop_back();
    } else {
      const KvRecord kind = random() % 3 == 0 ? KvRecord::kNear : KvRecord::kBase;
      const PageId id = pool.Allocate(kind);
      if (id == kNoPage) {
        ASSERT_EQ(pool.empty_slabs(), 0);
        continue;
      }
      held.emplace_back(kind, id);
    }
    std::set<std::pair<int64_t, int64_t>> ranges;
    int64_t end = 0;
    for (const auto& [kind, id] : held) {
      const int32_t per_slab = cut.per_slab[static_cast<size_t>(kind)];
      const int64_t begin =
          Index(id) / per_slab * cut.slab_bytes + Index(id) % per_slab * layout.record_bytes(kind);
      ranges.emplace(begin, begin + layout.record_bytes(kind));
    }
    ASSERT_EQ(ranges.size(), held.size());
    for (const auto& [begin, stop] : ranges) {
      ASSERT_GE(begin, end) << "step " << step;
      end = stop;
    }
    ASSERT_EQ(pool.used(KvRecord::kNear) + pool.used(KvRecord::kBase),
              static_cast<int32_t>(held.size()));
  }
  for (const auto& [kind, id] : held) pool.Release(kind, id);
  EXPECT_EQ(pool.empty_slabs(), pool.slabs());
}

TEST(RecordPoolDeathTest, ARecordIsNotFreedTwice) {
  const KvLayout layout = FitLayout();
  RecordPool pool(ArenaCut(layout, ArenaBytesFor(layout, KvRecord::kNear, 1)));
  const PageId id = pool.Allocate(KvRecord::kBase);
  pool.Allocate(KvRecord::kBase);
  pool.Release(KvRecord::kBase, id);
  EXPECT_DEATH(pool.Release(KvRecord::kBase, id), "broken invariant");
}

}  // namespace
}  // namespace asymserve
