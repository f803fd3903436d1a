#include "engine/kv/page_store.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

namespace asymserve {
namespace {

constexpr KvShape kShape = {.layers = 2, .kv_heads = 2, .head_size = 64};
constexpr int32_t kP = 64;

KvScheme Named(const char* name, KvCodec near) {
  KvScheme scheme = *NamedKvScheme(name, kShape);
  scheme.near = near;
  return scheme;
}

ArenaCut Cut(const KvScheme& scheme, int32_t slabs) {
  const KvLayout layout(kShape, scheme);
  ArenaCut cut(layout, 0);
  cut.slabs = slabs;
  return cut;
}

TEST(PageStoreTest, AnExactPageTakesTwoInt8RecordsOrOneHalfRecord) {
  for (const char* name : {"int8", "fit-2/1"}) {
    for (const KvCodec near : {KvCodec::kInt8, KvCodec::kHalf}) {
      const KvScheme scheme = Named(name, near);
      const int32_t per_page = near == KvCodec::kInt8 ? 2 : 1;
      PageStore store(scheme, Cut(scheme, 40));
      std::vector<KvPage> pages;
      std::vector<KvSealOp> seals;
      ASSERT_TRUE(store.Prepare(pages, 5 * kP - 3, 0, seals, KvPrecision::kExact));
      EXPECT_EQ(store.used(KvRecord::kNear), 5 * per_page);
      EXPECT_EQ(store.pages_used(), 5);
      EXPECT_EQ(store.PeakDemand(5 * kP - 3, KvPrecision::kExact).records[0], 5 * per_page);
      std::set<PageId> records;
      for (const KvPage& page : pages) {
        EXPECT_TRUE(page.exact);
        EXPECT_EQ(page.exact_values != kNoPage, per_page == 2);
        EXPECT_TRUE(records.insert(page.near).second);
        if (per_page == 2) {
          EXPECT_TRUE(records.insert(page.exact_values).second);
        }
      }
      store.Release(pages);
      EXPECT_TRUE(store.empty());
      EXPECT_EQ(store.pages_used(), 0);
    }
  }
}

TEST(PageStoreTest, ExactPagesAreNeverSealedHoweverLongTheSequence) {
  const KvScheme scheme = Named("fit-2/1", KvCodec::kInt8);
  PageStore store(scheme, Cut(scheme, 160));
  std::vector<KvPage> exact;
  std::vector<KvPage> quantized;
  std::vector<KvSealOp> seals;
  for (int32_t tokens = 1; tokens <= 20 * kP; tokens += 17) {
    ASSERT_TRUE(store.Prepare(exact, tokens, (tokens - 1) / kP, seals, KvPrecision::kExact));
    store.EndPlan();
  }
  EXPECT_TRUE(seals.empty());
  EXPECT_EQ(store.used(KvRecord::kBase), 0);
  for (const KvPage& page : exact) {
    EXPECT_EQ(page.key_tier, KvTier::kNear);
    EXPECT_EQ(page.value_tier, KvTier::kNear);
  }
  const std::vector<KvPage> before = exact;
  for (int32_t tokens = 1; tokens <= 20 * kP; tokens += 17) {
    ASSERT_TRUE(store.Prepare(quantized, tokens, (tokens - 1) / kP, seals));
    store.EndPlan();
  }
  EXPECT_EQ(seals.size(), 17u);  // all but the sink, a recent one and the newest
  EXPECT_EQ(exact, before);
}

TEST(PageStoreTest, AnExactSequenceMayBeAsLongAsItsRecordsFitTheArena) {
  const KvScheme scheme = Named("int8", KvCodec::kInt8);
  PageStore store(scheme, Cut(scheme, 20));  // of a near record each
  EXPECT_EQ(store.MaxTokens(), 20 * kP);
  EXPECT_EQ(store.MaxTokens(KvPrecision::kExact), 10 * kP);
  std::vector<KvPage> pages;
  std::vector<KvSealOp> seals;
  EXPECT_FALSE(store.Prepare(pages, 10 * kP + 1, 0, seals, KvPrecision::kExact));
  EXPECT_TRUE(pages.empty());
  EXPECT_TRUE(store.empty()) << "refused, it touched something";
  EXPECT_TRUE(store.Prepare(pages, 10 * kP, 0, seals, KvPrecision::kExact));
  EXPECT_EQ(store.empty_slabs(), 0);
  const KvScheme sealing = Named("fit-2/1", KvCodec::kInt8);
  const PageStore other(sealing, Cut(sealing, 20));
  EXPECT_EQ(other.MaxTokens(KvPrecision::kExact), 10 * kP);
  EXPECT_GT(other.MaxTokens(), 30 * kP);
}

TEST(PageStoreTest, AnExactPageMayTakeTheNearRecordThatASealOfThisPlanReads) {
  const KvScheme scheme = Named("fit-2/1", KvCodec::kInt8);
  const ArenaCut cut = Cut(scheme, 7);  // six near records, and a slab of sealed ones
  PageStore store(scheme, cut);
  std::vector<KvPage> quantized;
  std::vector<KvPage> exact;
  std::vector<KvSealOp> seals;
  ASSERT_TRUE(store.Prepare(quantized, 4 * kP, 0, seals));
  ASSERT_TRUE(store.Prepare(exact, kP, 0, seals, KvPrecision::kExact));
  store.EndPlan();
  ASSERT_EQ(store.used(KvRecord::kNear), 6);
  ASSERT_TRUE(store.Prepare(quantized, 4 * kP, 4, seals));
  ASSERT_EQ(seals.size(), 2u);
  ASSERT_EQ(store.empty_slabs(), 0);
  ASSERT_TRUE(store.Prepare(exact, 2 * kP, 0, seals, KvPrecision::kExact));
  std::set<PageId> near;
  for (const std::vector<KvPage>* pages : {&quantized, &exact}) {
    for (const KvPage& page : *pages) {
      for (const PageId id : {page.near, page.exact_values}) {
        if (id != kNoPage) {
          EXPECT_TRUE(near.insert(id).second) << "record " << Index(id) << " is held twice";
        }
      }
    }
  }
  EXPECT_EQ(near.size(), 6u);
  store.EndPlan();
  EXPECT_EQ(store.used(KvRecord::kNear), 6);
}

}  // namespace
}  // namespace asymserve
