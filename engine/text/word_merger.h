#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <vector>

#include "engine/text/merge_table.h"

namespace asymserve {

/// A stretch of a word that is a token, or is to become part of one.
struct Symbol {
  uint32_t begin, length;  // bytes in the word
  int32_t id;              // -1: no token, joins nothing by id
};

/// Byte pair encoding of one word at a time (Sennrich et al. 2016, section 3.2): joins the
/// neighbours of the lowest rank, the leftmost of equals, until none join. O(n log n). Keeps its
/// memory between words; one thread.
class WordMerger {
 public:
  /// Replaces `symbols`, which are adjacent and in order, by what they merge into.
  /// `find(const Symbol& left, const Symbol& right)` gives their Merge.
  template <typename FindMerge>
  void Run(std::vector<Symbol>& symbols, FindMerge&& find) {
    if (symbols.size() <= kShortWord) {
      RunShort(symbols, find);
    } else {
      RunLong(symbols, find);
    }
  }

  static constexpr size_t kShortWord = 32;  // symbols; up to here a scan beats a heap

 private:
  /// Scans for the best merge each time.
  template <typename FindMerge>
  static void RunShort(std::vector<Symbol>& symbols, FindMerge& find) {
    std::array<Merge, kShortWord> merges;  // [i] joins symbols i and i + 1
    size_t count = symbols.size();
    for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(symbols[i], symbols[i + 1]);
    while (count > 1) {
      size_t best = 0;
      for (size_t i = 1; i + 1 < count; ++i) {
        if (merges[i].rank < merges[best].rank) best = i;
      }
      if (merges[best].rank == Merge::kNone) break;
      symbols[best].length += symbols[best + 1].length;
      symbols[best].id = merges[best].id;
      std::copy(symbols.begin() + best + 2, symbols.begin() + count, symbols.begin() + best + 1);
      if (best + 2 < count) {
        std::copy(merges.begin() + best + 2, merges.begin() + count - 1, merges.begin() + best + 1);
      }
      --count;
      if (best + 1 < count) merges[best] = find(symbols[best], symbols[best + 1]);
      if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
    }
    symbols.resize(count);
  }

  struct Candidate {
    uint64_t key;     // rank, then place of the left symbol: the order of merging
    uint32_t length;  // of the joined symbol; differs when either neighbour has changed since
    int32_t id;
    bool operator>(const Candidate& other) const { return key > other.key; }
  };
  struct Links {
    uint32_t previous, next;  // places; kEnd at either end of the word
  };
  static constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();

  /// A heap of candidate merges over a linked list.
  template <typename FindMerge>
  void RunLong(std::vector<Symbol>& symbols, FindMerge& find) {
    const auto count = static_cast<uint32_t>(symbols.size());
    links_.resize(count);
    candidates_.clear();
    for (uint32_t i = 0; i < count; ++i) links_[i] = {i - 1, i + 1 < count ? i + 1 : kEnd};
    for (uint32_t i = 0; i + 1 < count; ++i) AddCandidate(symbols, i, find);
    std::make_heap(candidates_.begin(), candidates_.end(), std::greater<>());
    while (!candidates_.empty()) {
      const Candidate best = candidates_.front();
      std::pop_heap(candidates_.begin(), candidates_.end(), std::greater<>());
      candidates_.pop_back();
      const auto left = static_cast<uint32_t>(best.key);
      const uint32_t right = links_[left].next;
      if (symbols[left].length == 0 || right == kEnd ||
          symbols[left].length + symbols[right].length != best.length) {
        continue;
      }
      symbols[left].length = best.length;
      symbols[left].id = best.id;
      symbols[right].length = 0;
      const uint32_t after = links_[right].next;
      const uint32_t before = links_[left].previous;
      links_[left].next = after;
      if (after != kEnd) {
        links_[after].previous = left;
        PushCandidate(symbols, left, find);
      }
      if (before != kEnd) PushCandidate(symbols, before, find);
    }
    std::erase_if(symbols, [](const Symbol& symbol) { return symbol.length == 0; });
  }

  template <typename FindMerge>
  bool AddCandidate(const std::vector<Symbol>& symbols, uint32_t left, FindMerge& find) {
    const Symbol& a = symbols[left];
    const Symbol& b = symbols[links_[left].next];
    const Merge merge = find(a, b);
    if (merge.rank == Merge::kNone) return false;
    candidates_.push_back({(uint64_t{merge.rank} << 32) | left, a.length + b.length, merge.id});
    return true;
  }

  template <typename FindMerge>
  void PushCandidate(const std::vector<Symbol>& symbols, uint32_t left, FindMerge& find) {
    if (AddCandidate(symbols, left, find)) {
      std::push_heap(candidates_.begin(), candidates_.end(), std::greater<>());
    }
  }

  std::vector<Links> links_;
  std::vector<Candidate> candidates_;
};

}  // namespace asymserve
