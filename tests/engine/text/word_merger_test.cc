#include "engine/text/word_merger.h"

#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

using Merges = std::map<std::pair<int32_t, int32_t>, Merge>;

Merge Find(const Merges& merges, int32_t left, int32_t right) {
  const auto found = merges.find({left, right});
  return found == merges.end() ? Merge{} : found->second;
}

/// Byte pair encoding as it is defined.
std::vector<int32_t> Naive(std::vector<int32_t> ids, const Merges& merges) {
  while (true) {
    size_t best = 0;
    Merge best_merge;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const Merge merge = Find(merges, ids[i], ids[i + 1]);
      if (merge.rank < best_merge.rank) {
        best = i;
        best_merge = merge;
      }
    }
    if (best_merge.rank == Merge::kNone) return ids;
    ids[best] = best_merge.id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

/// Random merges over three letters; some have equal ranks, as pieces with equal scores do.
Merges RandomMerges(std::mt19937& random) {
  Merges merges;
  const auto tokens = static_cast<int32_t>(4 + random() % 20);
  for (int32_t id = 3; id < tokens; ++id) {
    const auto left = static_cast<int32_t>(random() % id);
    const auto right = static_cast<int32_t>(random() % id);
    merges.insert({{left, right}, {static_cast<uint32_t>(random() % 12), id}});
  }
  return merges;
}

TEST(WordMergerTest, MergesAsTheDefinitionDoesForEveryLengthAroundTheSwitchToTheHeap) {
  constexpr uint32_t kSeed = 65537;
  std::mt19937 random(kSeed);
  WordMerger merger;
  for (int round = 0; round < 3'000; ++round) {
    const Merges merges = RandomMerges(random);
    std::vector<int32_t> ids(random() % (3 * WordMerger::kShortWord));
    std::vector<Symbol> symbols;
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(random() % 3);
      symbols.push_back({static_cast<uint32_t>(symbols.size()), 1, id});
    }
    merger.Run(symbols, [&](const Symbol& left, const Symbol& right) {
      return Find(merges, left.id, right.id);
    });
    std::vector<int32_t> merged;
    uint32_t end = 0;
    for (const Symbol& symbol : symbols) {
      ASSERT_EQ(symbol.begin, end);
      end += symbol.length;
      merged.push_back(symbol.id);
    }
    ASSERT_EQ(end, ids.size());
    ASSERT_EQ(merged, Naive(ids, merges)) << "seed " << kSeed << " round " << round;
  }
}

TEST(MergeTableTest, FindsWhatWasAddedAndNothingElse) {
  constexpr int32_t kTokens = 300;
  MergeTable table(kTokens * 3);
  for (int32_t id = 0; id < kTokens; ++id) {
    for (int32_t step = 0; step < 3; ++step) {
      table.Add(id, id + step, {static_cast<uint32_t>(id), id * 3 + step});
    }
  }
  for (int32_t left = 0; left < kTokens; ++left) {
    for (int32_t right = 0; right < kTokens; ++right) {
      const int32_t step = right - left;
      const Merge merge = table.Find(left, right);
      ASSERT_EQ(merge.rank != Merge::kNone, step >= 0 && step < 3);
      ASSERT_TRUE(merge.rank == Merge::kNone || merge.id == left * 3 + step);
    }
  }
  EXPECT_EQ(table.Find(-1, 0).rank, Merge::kNone);
}

TEST(MergeTableTest, TheFirstOfTwoMergesOfAPairStays) {
  MergeTable table(2);
  table.Add(1, 2, {0, 10});
  table.Add(1, 2, {1, 11});
  EXPECT_EQ(table.Find(1, 2).id, 10);
}

}  // namespace
}  // namespace asymserve
