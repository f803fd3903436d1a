#include "config/key_distance.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace asymserve {
namespace {

TEST(EditDistanceTest, CountsInsertionsDeletionsSubstitutionsAndSwaps) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("threads", "threads"), 0u);
  EXPECT_EQ(EditDistance("treads", "threads"), 1u);
  EXPECT_EQ(EditDistance("threads", "treads"), 1u);
  EXPECT_EQ(EditDistance("thrxads", "threads"), 1u);
  EXPECT_EQ(EditDistance("thraeds", "threads"), 1u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

TEST(NearestKeyTest, FindsAMisspeltAShortenedAndAMisplacedKey) {
  const std::vector<std::string_view> known = {"log", "log.level", "engine", "engine.threads",
                                               "engine.kv_memory_bytes"};
  EXPECT_EQ(NearestKey("engine.treads", known), "engine.threads");
  EXPECT_EQ(NearestKey("engine.kv", known), "engine.kv_memory_bytes");
  EXPECT_EQ(NearestKey("engine.level", known), "log.level");
  EXPECT_EQ(NearestKey("lgo", known), "log");
}

TEST(NearestKeyTest, GuessesNothingWhenNothingIsNear) {
  const std::vector<std::string_view> known = {"log", "engine.threads"};
  EXPECT_EQ(NearestKey("", known), "");
  EXPECT_EQ(NearestKey("xylophone", known), "");
  EXPECT_EQ(NearestKey(std::string(1000, 'x'), known), "");
}

}  // namespace
}  // namespace asymserve
