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
      KvDemand none;
      if (token > 0) store.Publish(chain, token, KvPrecision::kScheme, pages, none);
      if (token < end) {
        ASSERT_TRUE(store.Prepare(pages, token + kChunk, token / kP, seals));
      }
      store.EndPlan();
    }
  }
};

TEST_F(PrefixIndexTest, ASequenceThatBeginsAfterAPrefixReadsThePagesOfItsPosition) {
  PageStore store = MakeStore(160);
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
  PageStore store = MakeStore(160);
  PrefixChain chain = Chain(3);
  std::vector<KvPage> owner;
  Compute(store, chain, owner);
  chain.chunks[1][1] = 7;
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk), kChunk);
  chain.chunks[0][1] = 7;
  EXPECT_EQ(store.CachedTokens(chain, 3 * kChunk), 0);
}

TEST_F(PrefixIndexTest, WhatLongerPrefixesReadOutlivesWhatOnlyABeginningNeeds) {
  PageStore store = MakeStore(48);
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
  PageStore store = MakeStore(24);
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
  PageStore store = MakeStore(160);
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

/// An index by itself, over records of one page each that are never sealed.
class BareIndexTest : public ::testing::Test {
 protected:
  static constexpr int32_t kPages = kChunk / kP;

  static PrefixHash Name(uint8_t prompt, int32_t chunk) {
    return {prompt, static_cast<uint8_t>(chunk)};
  }
  /// A sequence computes a prompt and publishes all its chunks.
  std::vector<KvPage> Compute(uint8_t prompt, int32_t chunks) {
    std::vector<KvPage> pages;
    for (int32_t chunk = 0; chunk < chunks; ++chunk) {
      for (int32_t i = 0; i < kPages; ++i) pages.push_back({.near = pool_.Allocate(kNear)});
      const PrefixHash parent = Name(prompt, chunk - 1);
      index_.Publish(chunk == 0 ? nullptr : &parent, Name(prompt, chunk), (chunk + 1) * kChunk,
                     pages, KvPrecision::kScheme, pool_);
    }
    index_.CheckInvariants(pool_);
    return pages;
  }
  std::vector<KvPage> Resume(uint8_t prompt, int32_t chunk) {
    std::vector<KvPage> pages;
    index_.Resume(Name(prompt, chunk), (chunk + 1) * kChunk, KvPrecision::kScheme, pool_, pages);
    index_.CheckInvariants(pool_);
    return pages;
  }
  void Release(const std::vector<KvPage>& pages) {
    for (const KvPage& page : pages) {
      if (pool_.Release(kNear, page.near)) index_.OnUnpinned(kNear, page.near);
    }
    index_.CheckInvariants(pool_);
  }
  bool Evict() {
    const bool evicted = index_.EvictOldest(pool_);
    index_.CheckInvariants(pool_);
    return evicted;
  }

  static constexpr KvRecord kNear = KvRecord::kNear;
  RecordPool pool_{ArenaCut::Pages(10'000)};
  PrefixIndex index_{KvScheme{}};
};

TEST_F(BareIndexTest, ALeafGoesBeforeWhatCarriesItThoughItWasPinnedWhenItsTurnCame) {
  const std::vector<KvPage> owner = Compute('a', 2);
  Release(Compute('x', 1));
  Release(Resume('a', 0));  // now the first chunk was used last
  ASSERT_TRUE(Evict());     // passes the second chunk, which is pinned
  EXPECT_FALSE(index_.Resumes(Name('x', 0)));
  Release(owner);
  ASSERT_TRUE(Evict());
  EXPECT_FALSE(index_.Resumes(Name('a', 1)));
  EXPECT_TRUE(index_.Resumes(Name('a', 0))) << "what carried the leaf went with it";
  ASSERT_TRUE(Evict());
  EXPECT_EQ(index_.nodes(), 0u);
  EXPECT_FALSE(Evict());
}

TEST_F(BareIndexTest, WhatRunningSequencesPinIsNotLookedAtByEveryEviction) {
  std::vector<std::vector<KvPage>> owners;
  for (uint8_t prompt = 0; prompt < 200; ++prompt) owners.push_back(Compute(prompt, 4));
  for (uint8_t prompt = 200; prompt < 210; ++prompt) Release(Compute(prompt, 4));
  EXPECT_EQ(index_.listed(), 40u);
  EXPECT_EQ(index_.nodes(), 840u);
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(Evict());
  EXPECT_FALSE(Evict());
  EXPECT_EQ(index_.nodes(), 800u);
  Release(owners[7]);
  EXPECT_EQ(index_.listed(), 4u);
  // Pinned again, it is looked at once.
  const std::vector<KvPage> again = Resume(7, 3);
  EXPECT_FALSE(Evict());
  EXPECT_EQ(index_.listed(), 0u);
}

TEST_F(BareIndexTest, EveryRecordThatIsKeptAndNotPinnedCanBeHad) {
  // Two sequences compute one prompt at once: what the index keeps of it is the first one's, but
  // for the last chunk.
  const std::vector<KvPage> first = Compute('a', 2);
  std::vector<KvPage> second;
  for (int32_t i = 0; i < 3 * kPages; ++i) second.push_back({.near = pool_.Allocate(kNear)});
  const PrefixHash parent = Name('a', 1);
  index_.Publish(&parent, Name('a', 2), 3 * kChunk, second, KvPrecision::kScheme, pool_);
  Release(first);
  const int32_t used = pool_.used(kNear);
  EXPECT_EQ(used, 5 * kPages);
  while (Evict()) {
  }
  EXPECT_EQ(pool_.used(kNear), 3 * kPages) << "the second one pins those";
  EXPECT_EQ(pool_.pinned(kNear), 3 * kPages);
  EXPECT_EQ(index_.nodes(), 0u) << "nobody can begin after a chunk without its predecessors";
}

TEST_F(BareIndexTest, APromptThatManyContinueIsDroppedWithAllOfThem) {
  Release(Compute('a', 1));
  const PrefixHash parent = Name('a', 0);
  for (int32_t i = 1; i <= 200; ++i) {
    std::vector<KvPage> pages = Resume('a', 0);
    for (int32_t page = 0; page < kPages; ++page) pages.push_back({.near = pool_.Allocate(kNear)});
    index_.Publish(&parent, Name('a', i), 2 * kChunk, pages, KvPrecision::kScheme, pool_);
    Release(pages);
  }
  EXPECT_EQ(index_.nodes(), 201u);
  for (int32_t i = 1; i <= 200; ++i) {
    ASSERT_TRUE(Evict());
    ASSERT_FALSE(index_.Resumes(Name('a', i))) << "least recently used first";
    ASSERT_TRUE(index_.Resumes(parent));
  }
  ASSERT_TRUE(Evict());
  EXPECT_EQ(index_.nodes(), 0u);
  EXPECT_EQ(pool_.empty_slabs(), pool_.slabs());
}

}  // namespace
}  // namespace asymserve
