#include "engine/kv/prefix_index.h"

#include <gtest/gtest.h>

#include <vector>

#include "engine/kv/page_store.h"

namespace asymserve {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 2, .head_size = 64};
constexpr int32_t kP = 64;
constexpr int32_t kChunk = 256;

/// A store in the scheme fit-2/1, and a sequence that computes a prompt in it.
class PrefixIndexTest : public ::testing::Test {
 protected:
  static PageStore MakeStore(int32_t slabs) {
    const KvScheme scheme = *NamedKvScheme("fit-2/1", kShape);
    ArenaCut cut(KvLayout(kShape, scheme), 0);
    cut.slabs = slabs;
    return {scheme, cut};
  }
  /// Names of the chunks of a prompt: those of prompts with another `first` differ from there on.
  static PrefixChain Chain(int32_t chunks, uint8_t first = 0) {
    PrefixChain chain;
    for (int32_t i = 0; i < chunks; ++i) {
      PrefixHash hash = {};
      hash[0] = static_cast<uint8_t>(i);
      hash[1] = first;
      chain.chunks.push_back(hash);
    }
    return chain;
  }
  /// Computes whole chunks from `begin` on and publishes each as the next begins.
  static void Compute(PageStore& store, const PrefixChain& chain, std::vector<KvPage>& pages,
                      int32_t begin = 0) {
    std::vector<KvSealOp> seals;
    const auto end = static_cast<int32_t>(chain.chunks.size()) * kChunk;
    for (int32_t token = begin; token <= end; token += kChunk) {
      ASSERT_TRUE(store.Prepare(pages, token + 1, token / kP, seals));
      if (token > 0) store.Publish(chain, token, KvPrecision::kScheme, pages);
      if (token < end) {
        ASSERT_TRUE(store.Prepare(pages, token + kChunk, token / kP, seals));
      }
      store.EndPlan();
    }
  }
};

TEST_F(PrefixIndexTest, ASequenceThatBeginsAfterAPrefixReadsThePagesOfItsPosition) {
  PageStore store = MakeStore(40);
  const PrefixChain chain = Chain(3);
  std::vector<KvPage> owner;
  Compute(store, chain, owner);
  for (const int32_t tokens : {kChunk, 2 * kChunk, 3 * kChunk}) {
    ASSERT_EQ(store.CachedTokens(chain, tokens), tokens);
    std::vector<KvPage> pages;
    store.Resume(chain, tokens, KvPrecision::kScheme, pages);
    ASSERT_EQ(std::ssize(pages), tokens / kP);
    for (int32_t i = 0; i < tokens / kP; ++i) {
      const KvPage& page = pages[static_cast<size_t>(i)];
      const KvTier tier = TierOf(store.scheme(), KvTensor::kKey, i, tokens / kP);
      EXPECT_EQ(page.key_tier, tier) << i;
      EXPECT_EQ(page.near != kNoPage, tier == KvTier::kNear) << i;
      EXPECT_EQ(page.base != kNoPage, tier != KvTier::kNear) << i;
    }
    store.Release(pages);
  }
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk - 1), 2 * kChunk) << "more than was asked for";
}

TEST_F(PrefixIndexTest, AnotherPromptFindsOnlyWhatItHasInCommon) {
  PageStore store = MakeStore(40);
  PrefixChain chain = Chain(3);
  std::vector<KvPage> owner;
  Compute(store, chain, owner);
  chain.chunks[1][1] = 7;
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk), kChunk);
  chain.chunks[0][1] = 7;
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk), 0);
}

TEST_F(PrefixIndexTest, WhatLongerPrefixesReadOutlivesWhatOnlyABeginningNeeds) {
  PageStore store = MakeStore(12);
  const PrefixChain chain = Chain(3);
  std::vector<KvPage> owner;
  Compute(store, chain, owner);
  store.Release(owner);
  ASSERT_EQ(store.CachedTokens(chain, kChunk), kChunk);
  // Sequences that need room, one after the other larger ones.
  std::vector<KvSealOp> seals;
  int32_t tokens = kP;
  while (store.CachedTokens(chain, kChunk) == kChunk) {
    std::vector<KvPage> other;
    ASSERT_TRUE(store.Prepare(other, tokens, 0, seals));
    store.Release(other);
    store.EndPlan();
    tokens += kP;
  }
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk), 3 * kChunk) << "the longest went first";
}

TEST_F(PrefixIndexTest, WhatASequenceHoldsIsNotEvicted) {
  PageStore store = MakeStore(6);
  const PrefixChain chain = Chain(2);
  std::vector<KvPage> owner;
  Compute(store, chain, owner);
  store.Release(owner);
  std::vector<KvPage> holder;
  store.Resume(chain, 2 * kChunk, KvPrecision::kScheme, holder);
  const std::vector<KvPage> before = holder;
  std::vector<KvPage> greedy;
  std::vector<KvSealOp> seals;
  for (int32_t tokens = kP; store.Prepare(greedy, tokens, 0, seals); tokens += kP) {
  }
  for (const KvPage& page : holder) {
    for (const KvPage& other : greedy) EXPECT_NE(page.near, other.near);
  }
  EXPECT_EQ(holder, before);
  store.Release(greedy);
  store.Release(holder);
  EXPECT_TRUE(store.empty());
}

TEST_F(PrefixIndexTest, DroppingWhatIsKeptLeavesNothingBehind) {
  PageStore store = MakeStore(40);
  for (uint8_t prompt = 0; prompt < 5; ++prompt) {
    std::vector<KvPage> pages;
    Compute(store, Chain(3, prompt), pages);
    store.Release(pages);
  }
  EXPECT_TRUE(store.empty());
  EXPECT_LT(store.empty_slabs(), store.slabs());
  store.DropKept();
  EXPECT_EQ(store.empty_slabs(), store.slabs());
  EXPECT_EQ(store.prefix_index().nodes(), 0u);
}

}  // namespace
}  // namespace asymserve
