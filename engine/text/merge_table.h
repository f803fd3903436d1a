#pragma once

#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

namespace asymserve {

/// What joining two neighbours gives.
struct Merge {
  static constexpr uint32_t kNone = std::numeric_limits<uint32_t>::max();
  uint32_t rank = kNone;  // the lowest is joined first; kNone: they do not join
  int32_t id = -1;        // of the joined token
};

/// Merges by the ids of the two tokens: a hash table with open addressing, filled once.
class MergeTable {
 public:
  explicit MergeTable(size_t merges)
      : slots_(std::bit_ceil(merges + merges / 2 + 2)),
        shift_(64 - std::countr_zero(slots_.size())) {}

  /// The first merge of a pair stays. At most as many calls as announced.
  void Add(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[Locate(Key(left, right))];
    if (slot.key == kFree) slot = {Key(left, right), merge};
  }

  Merge Find(int32_t left, int32_t right) const { return slots_[Locate(Key(left, right))].merge; }

 private:
  static constexpr uint64_t kFree = std::numeric_limits<uint64_t>::max();
  struct Slot {
    uint64_t key = kFree;
    Merge merge;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return (uint64_t{static_cast<uint32_t>(left)} << 32) | static_cast<uint32_t>(right);
  }
  size_t Locate(uint64_t key) const {
    size_t at = (key * 0x9E3779B97F4A7C15u) >> shift_;
    while (slots_[at].key != key && slots_[at].key != kFree) at = (at + 1) & (slots_.size() - 1);
    return at;
  }

  std::vector<Slot> slots_;  // a power of two of them, some free
  int shift_;
};

}  // namespace asymserve
