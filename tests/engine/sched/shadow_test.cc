#include "engine/sched/shadow.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <vector>

namespace asymserve {
namespace {

/// Pages of 4 tokens, chunks of 8; a prompt of 10 tokens and 6 generated ones.
class ShadowTest : public ::testing::Test {
 protected:
  std::unique_ptr<Shadow> Begin(const RecordPool& arena) const {
    return Shadow::Begin({.prompt_tokens = 10, .tokens = 16}, scheme_, cut_, arena);
  }

  const KvScheme scheme_ = {.page_tokens = 4, .chunk_tokens = 8};
  const ArenaCut cut_ = ArenaCut::Pages(20);
  RecordPool arena_{cut_};
};

std::string Describe(const std::optional<ShadowStep>& step) {
  if (!step.has_value()) return "none";
  return "[" + std::to_string(step->begin) + "," + std::to_string(step->begin + step->count) +
         ") rows " + std::to_string(step->rows) + ", pages " +
         std::to_string(step->scheme_pages.size()) + "+" + std::to_string(step->exact_pages.size());
}

TEST_F(ShadowTest, ComputesEveryTokenInItsFirstRoleAndComparesFromTheLastOfThePromptOn) {
  const auto shadow = Begin(arena_);
  ASSERT_NE(shadow, nullptr);
  std::vector<std::string> steps;
  while (!shadow->done() && steps.size() < 10) steps.push_back(Describe(shadow->Plan(100, 100)));
  const std::vector<std::string> expected = {
      "[0,8) rows 0, pages 2+2", "[8,10) rows 1, pages 3+3", "[10,12) rows 2, pages 3+3",
      "[12,15) rows 3, pages 4+4"};  // the last token is never computed
  EXPECT_EQ(steps, expected);
}

TEST_F(ShadowTest, DividesTokensAndRowsAmongItsTwoSequences) {
  const auto shadow = Begin(arena_);
  ASSERT_NE(shadow, nullptr);
  EXPECT_EQ(Describe(shadow->Plan(1, 100)), "[0,0) rows 0, pages 0+0");
  EXPECT_EQ(Describe(shadow->Plan(7, 0)), "[0,3) rows 0, pages 1+1");
  EXPECT_EQ(Describe(shadow->Plan(16, 0)), "[3,8) rows 0, pages 2+2");
  EXPECT_EQ(Describe(shadow->Plan(16, 0)), "[8,9) rows 0, pages 3+3");
  EXPECT_EQ(Describe(shadow->Plan(16, 1)), "[0,0) rows 0, pages 0+0");
  EXPECT_EQ(Describe(shadow->Plan(16, 3)), "[9,10) rows 1, pages 3+3");
  EXPECT_EQ(Describe(shadow->Plan(16, 2)), "[10,11) rows 1, pages 3+3");
  EXPECT_FALSE(shadow->done());
}

TEST_F(ShadowTest, NeedsRoomForBothItsSequencesAtOnce) {
  // Four pages each.
  while (arena_.empty().size() > 8) ASSERT_NE(arena_.Allocate(KvRecord::kNear), kNoPage);
  EXPECT_NE(Begin(arena_), nullptr);
  ASSERT_NE(arena_.Allocate(KvRecord::kNear), kNoPage);
  EXPECT_EQ(Begin(arena_), nullptr);
}

TEST_F(ShadowTest, LiesInTheSlabsThatAreTakenLastAndIsToldWhenOneIs) {
  const auto shadow = Begin(arena_);
  ASSERT_NE(shadow, nullptr);
  PageId taken = kNoPage;
  for (int i = 0; i < 12; ++i) {
    taken = arena_.Allocate(KvRecord::kNear);
    EXPECT_TRUE(shadow->HasRecords(arena_)) << i;
  }
  taken = arena_.Allocate(KvRecord::kNear);
  EXPECT_FALSE(shadow->HasRecords(arena_));
  arena_.Release(KvRecord::kNear, taken);
  EXPECT_FALSE(shadow->HasRecords(arena_)) << "it was written in between";
}

TEST_F(ShadowTest, NeitherUsesARecordTwiceNorOneThatIsInUse) {
  std::set<PageId> used;
  for (int i = 0; i < 9; ++i) used.insert(arena_.Allocate(KvRecord::kNear));
  const auto shadow = Begin(arena_);
  ASSERT_NE(shadow, nullptr);
  ShadowStep last;
  while (!shadow->done()) last = *shadow->Plan(100, 100);
  for (const auto* pages : {&last.scheme_pages, &last.exact_pages}) {
    for (const KvPage& page : *pages) EXPECT_TRUE(used.insert(page.near).second);
  }
  EXPECT_EQ(used.size(), 9u + 8u);
  for (const KvPage& page : last.exact_pages) EXPECT_TRUE(page.exact);
  for (const KvPage& page : last.scheme_pages) EXPECT_FALSE(page.exact);
}

}  // namespace
}  // namespace asymserve
