#include "engine/kv/capacity.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/kv/layout.h"
#include "engine/kv/page_store.h"

namespace asymserve {
namespace {

constexpr KvShape kShape = {.layers = 3, .kv_heads = 2, .head_size = 64};
constexpr int64_t kArena = int64_t{8} << 20;

/// Whether so many sequences can be decoded side by side to the given length.
bool Hold(const KvScheme& scheme, int64_t sequences, int32_t tokens) {
  PageStore store(scheme, ArenaCut(KvLayout(kShape, scheme), kArena));
  std::vector<std::vector<KvPage>> held(static_cast<size_t>(sequences));
  std::vector<KvSealOp> seals;
  bool all = true;
  for (int32_t end = kKvPageTokens; all && end - kKvPageTokens < tokens; end += kKvPageTokens) {
    for (std::vector<KvPage>& pages : held) {
      all = all && store.Prepare(pages, end, end / kKvPageTokens - 1, seals);
    }
    store.EndPlan();
  }
  for (std::vector<KvPage>& pages : held) store.Release(pages);
  return all;
}

TEST(KvCapacityTest, OfAnExactCacheIsItsBytesOverThoseOfAToken) {
  const int64_t page_bytes = KvLayout(kShape, KvScheme()).record_bytes(KvRecord::kNear);
  const int64_t pages = kArena / page_bytes / 4 * 4;  // a slab has four
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), kArena, 640), (KvCapacity{pages * 64, pages / 10}));
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), kArena, 641), (KvCapacity{pages * 64, pages / 11}));
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), 4 * page_bytes - 1, 1), KvCapacity());
}

TEST(KvCapacityTest, AllTheSequencesHaveRoomAtOnce) {
  for (const char* name : {"exact", "int8", "kivi-2", "fit-2/1"}) {
    SCOPED_TRACE(name);
    const KvScheme scheme = *NamedKvScheme(name, kShape);
    for (const int32_t tokens : {64, 1000, 2048}) {
      const KvCapacity capacity = CapacityOf(kShape, scheme, kArena, tokens);
      ASSERT_GT(capacity.sequences, 0);
      EXPECT_TRUE(Hold(scheme, capacity.sequences, tokens));
      EXPECT_EQ(CapacityOf(kShape, scheme, kArena, capacity.tokens).sequences, 1);
      EXPECT_EQ(CapacityOf(kShape, scheme, kArena, capacity.tokens + 1).sequences, 0);
    }
    const bool sealed = scheme.seals();
    const int64_t exact = CapacityOf(kShape, KvScheme(), kArena, 2048).sequences;
    const int64_t sequences = CapacityOf(kShape, scheme, kArena, 2048).sequences;
    EXPECT_GE(sequences, exact * (sealed ? 3 : 1));
    if (!sealed) {
      EXPECT_FALSE(Hold(scheme, sequences + 1, 2048));
    }
  }
}

}  // namespace
}  // namespace asymserve
