#include "engine/kv/page_pool.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <set>
#include <vector>

namespace asymserve {
namespace {

TEST(PagePoolTest, HandsOutEveryPageOnceAndNoMore) {
  PagePool pool(7);
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(3, pages));
  ASSERT_TRUE(pool.Allocate(4, pages));
  EXPECT_EQ(std::set<PageId>(pages.begin(), pages.end()).size(), 7u);
  for (const PageId page : pages) {
    EXPECT_GE(Index(page), 0);
    EXPECT_LT(Index(page), 7);
  }
  EXPECT_EQ(pool.free(), 0);
  EXPECT_FALSE(pool.Allocate(1, pages));
  EXPECT_EQ(pages.size(), 7u);
}

TEST(PagePoolTest, ARefusedAllocationTouchesNothing) {
  PagePool pool(5);
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(2, pages));
  const std::vector<PageId> before = pages;
  EXPECT_FALSE(pool.Allocate(4, pages));
  EXPECT_EQ(pages, before);
  EXPECT_EQ(pool.used(), 2);
  EXPECT_TRUE(pool.Allocate(3, pages));
}

TEST(PagePoolTest, AnAllocationOfNothingSucceedsOnAnEmptyPool) {
  PagePool pool(0);
  std::vector<PageId> pages;
  EXPECT_TRUE(pool.Allocate(0, pages));
  EXPECT_FALSE(pool.Allocate(1, pages));
  EXPECT_EQ(pool.total(), 0);
}

TEST(PagePoolTest, ReleaseTakesPagesBackAndClearsTheTable) {
  PagePool pool(3);
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(3, pages));
  pool.Release(pages);
  EXPECT_TRUE(pages.empty());
  EXPECT_EQ(pool.free(), 3);
  EXPECT_EQ(pool.used(), 0);
}

TEST(PagePoolTest, UsedAndFreeAddUpAndHeldPagesAreDistinctUnderRandomUse) {
  constexpr uint32_t kSeed = 20240611;
  SCOPED_TRACE(::testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  PagePool pool(37);
  std::vector<std::vector<PageId>> tables(9);
  for (int step = 0; step < 5000; ++step) {
    std::vector<PageId>& table = tables[random() % tables.size()];
    if (random() % 3 == 0) {
      pool.Release(table);
    } else {
      const auto count = static_cast<int32_t>(random() % 8);
      const bool fits = count <= pool.free();
      EXPECT_EQ(pool.Allocate(count, table), fits);
    }
    std::set<PageId> held;
    size_t used = 0;
    for (const auto& pages : tables) {
      held.insert(pages.begin(), pages.end());
      used += pages.size();
    }
    ASSERT_EQ(held.size(), used);
    ASSERT_EQ(pool.used(), static_cast<int32_t>(used));
    ASSERT_EQ(pool.used() + pool.free(), pool.total());
  }
}

TEST(PagePoolDeathTest, APageCannotBeFreedTwice) {
  PagePool pool(2);
  std::vector<PageId> pages;
  ASSERT_TRUE(pool.Allocate(1, pages));
  std::vector<PageId> copy = pages;
  pool.Release(pages);
  EXPECT_DEATH(pool.Release(copy), "broken invariant");
}

TEST(PagePoolDeathTest, AForeignPageCannotBeFreed) {
  PagePool pool(2);
  std::vector<PageId> beyond = {PageId{2}};
  EXPECT_DEATH(pool.Release(beyond), "broken invariant");
  std::vector<PageId> negative = {PageId{-1}};
  EXPECT_DEATH(pool.Release(negative), "broken invariant");
}

}  // namespace
}  // namespace asymserve
