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

KvLoad Of(int64_t tokens) {
  return {.prompt_tokens = tokens, .step_tokens = 512};
}

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
  const int64_t pages = kArena / page_bytes;
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), kArena, Of(640)), (KvCapacity{pages * 64, pages / 10}));
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), kArena, Of(641)), (KvCapacity{pages * 64, pages / 11}));
  EXPECT_EQ(CapacityOf(kShape, KvScheme(), page_bytes - 1, Of(1)), KvCapacity());
}

TEST(KvCapacityTest, AllTheSequencesHaveRoomAtOnce) {
  for (const char* name : {"exact", "int8", "kivi-2", "fit-2/1"}) {
    SCOPED_TRACE(name);
    const KvScheme scheme = *NamedKvScheme(name, kShape);
    for (const int32_t tokens : {64, 1000, 2048}) {
      const KvCapacity capacity = CapacityOf(kShape, scheme, kArena, Of(tokens));
      ASSERT_GT(capacity.sequences, 0);
      EXPECT_TRUE(Hold(scheme, capacity.sequences, tokens));
      EXPECT_EQ(CapacityOf(kShape, scheme, kArena, Of(capacity.tokens)).sequences, 1);
      EXPECT_EQ(CapacityOf(kShape, scheme, kArena, Of(capacity.tokens + 1)).sequences, 0);
    }
    const bool sealed = scheme.seals();
    const int64_t exact = CapacityOf(kShape, KvScheme(), kArena, Of(2048)).sequences;
    const int64_t sequences = CapacityOf(kShape, scheme, kArena, Of(2048)).sequences;
    EXPECT_GE(sequences, exact * (sealed ? 3 : 1));
    if (!sealed) {
      EXPECT_FALSE(Hold(scheme, sequences + 1, 2048));
    }
  }
}

TEST(KvCapacityTest, TheMostOfASequenceIsWhatThePageStoreSays) {
  KvScheme learned;
  learned.near = KvCodec::kInt8;
  learned.sink_pages = 1;
  learned.fresh_pages = 4;
  learned.key_window = learned.value_window = {.recent_pages = 1};
  learned.items.assign(12, {.codec = KvCodec::kPlanes, .base_planes = 16, .fresh_planes = 48});
  std::vector<KvScheme> schemes = {learned};
  for (const char* name : {"exact", "int8", "kivi-2", "asymkv-2/1", "fit-2/1"}) {
    schemes.push_back(*NamedKvScheme(name, kShape));
  }
  for (const KvScheme& scheme : schemes) {
    const KvLayout layout(kShape, scheme);
    const PageStore store(scheme, ArenaCut(layout, kArena));
    for (int64_t tokens = 1; tokens < 3000; tokens += 31) {
      const KvDemand expected = store.PeakDemand(tokens);
      const KvDemandModel model(layout, scheme, Of(tokens));
      for (size_t k = 0; k < 3; ++k) {
        EXPECT_EQ(model.peak().count[k], expected.records[k]) << scheme.name << " " << tokens;
        EXPECT_LE(model.decoding().count[k], model.peak().count[k]);
      }
    }
    EXPECT_EQ(TokensAlone(layout, scheme, ArenaCut(layout, kArena)), store.MaxTokens());
  }
}

TEST(KvCapacityTest, OnlySomeSequencesAreInTheMiddleOfAPrompt) {
  const KvScheme scheme = *NamedKvScheme("fit-2/2", kShape);
  const KvLayout layout(kShape, scheme);
  const KvDemandModel model(layout, scheme, {.prompt_tokens = 2048, .step_tokens = 700});
  EXPECT_EQ(model.prefilling(), 4);
  const KvRecords three = model.Together(3);
  const KvRecords nine = model.Together(9);
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(three.count[k], 3 * model.peak().count[k]);
    EXPECT_EQ(nine.count[k], 4 * model.peak().count[k] + 5 * model.decoding().count[k]);
  }
  EXPECT_LT(model.decoding()[KvRecord::kNear], model.peak()[KvRecord::kNear]);
}

}  // namespace
}  // namespace asymserve
