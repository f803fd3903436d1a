#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "engine/kv/ids.h"
#include "engine/kv/layout.h"

namespace asymserve {

/// How an arena is cut: into slabs of about the size of the largest record, each used for records
/// of one kind at a time. Page id i of a kind is record i % per_slab of slab i / per_slab. Larger
/// slabs would lose less to rounding, but more to slabs in which one record of many is still
/// needed.
struct ArenaCut {
  int64_t slab_bytes = 0;
  int32_t slabs = 0;
  std::array<int32_t, 3> per_slab = {};  // by KvRecord; 0: the scheme has no such record

  ArenaCut() = default;
  ArenaCut(const KvLayout& layout, int64_t arena_bytes);
  /// For a scheme that never seals: `pages` slabs of one page each, of any size.
  static ArenaCut Pages(int32_t pages);

  int32_t records(KvRecord kind) const { return slabs * per_slab[static_cast<size_t>(kind)]; }
};

/// The smallest arena that holds `records` records of one kind and nothing else.
int64_t ArenaBytesFor(const KvLayout& layout, KvRecord kind, int32_t records);

/// Hands out the records of an arena and counts who needs each: sequences *pin* it, the prefix
/// cache *keeps* it (kv/prefix_index.h), and it is free when neither does. A record that is kept
/// and not pinned can be had by dropping it. Counts only; the bytes live in a backend. No record is
/// handed out twice or given up more often than it was taken (checked). One thread.
class RecordPool {
 public:
  explicit RecordPool(const ArenaCut& cut);

  /// A record that its caller pins; kNoPage when neither a slab of this kind nor an empty slab has
  /// room.
  PageId Allocate(KvRecord kind);
  void Pin(KvRecord kind, PageId id);
  /// Gives up a pin. True: it was the last, and the record is kept.
  bool Release(KvRecord kind, PageId id);
  void Keep(KvRecord kind, PageId id);
  /// Gives up a Keep.
  void Drop(KvRecord kind, PageId id);

  int32_t pins(KvRecord kind, PageId id) const { return UseOf(kind, id).pins; }
  /// Whether anybody but the holder of one pin needs it.
  bool shared(KvRecord kind, PageId id) const {
    const Use& use = UseOf(kind, id);
    return use.pins + use.keeps > 1;
  }
  int32_t used(KvRecord kind) const { return used_[static_cast<size_t>(kind)]; }
  int32_t pinned(KvRecord kind) const { return pinned_[static_cast<size_t>(kind)]; }
  int32_t slabs() const { return cut_.slabs; }
  /// Slabs in which there is nothing, in the order in which they are taken last to first.
  std::span<const int32_t> empty() const { return empty_; }
  /// A number that changes when an empty slab is taken; 0: something is in it.
  uint64_t emptiness(int32_t slab) const {
    const Slab& one = slabs_[static_cast<size_t>(slab)];
    return one.records.empty() ? one.taken + 1 : 0;
  }
  int32_t empty_slabs() const { return static_cast<int32_t>(empty_.size()); }
  /// Slabs in which nothing is pinned, the empty ones among them.
  int32_t idle_slabs() const {
    return cut_.slabs - pinned_slabs_[0] - pinned_slabs_[1] - pinned_slabs_[2];
  }
  /// Free records in slabs of this kind.
  int32_t partial_room(KvRecord kind) const {
    const auto k = static_cast<size_t>(kind);
    return slabs_of_[k] * cut_.per_slab[k] - used_[k];
  }
  /// Records that are not pinned in slabs of this kind in which others are.
  int32_t room_beside_pinned(KvRecord kind) const {
    const auto k = static_cast<size_t>(kind);
    return pinned_slabs_[k] * cut_.per_slab[k] - pinned_[k];
  }

 private:
  struct Use {
    int32_t pins = 0;
    int32_t keeps = 0;
  };
  struct Slab {
    std::vector<Use> records;  // empty: the slab is
    int32_t used = 0;
    int32_t pinned = 0;
    size_t place = 0;    // in its list of by_used_
    uint64_t taken = 0;  // how often it ceased to be empty
  };

  const Use& UseOf(KvRecord kind, PageId id) const;
  Use& UseOf(KvRecord kind, PageId id) {
    return const_cast<Use&>(std::as_const(*this).UseOf(kind, id));
  }
  Slab& SlabOf(KvRecord kind, PageId id) {
    return slabs_[static_cast<size_t>(Index(id) / cut_.per_slab[static_cast<size_t>(kind)])];
  }
  void CountPinned(KvRecord kind, PageId id, int32_t change);
  void Free(KvRecord kind, PageId id);
  /// Enters a slab in by_used_, if it has room, and takes it out before its `used` changes.
  void List(KvRecord kind, int32_t index);
  void Unlist(KvRecord kind, int32_t index);
  /// So that the emptiest slabs run empty; -1: none has room.
  int32_t FullestWithRoom(KvRecord kind) const;

  ArenaCut cut_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> empty_;  // no records; last in, first out
  /// By kind and records in use: slabs with room that are not empty.
  std::array<std::vector<std::vector<int32_t>>, 3> by_used_;
  std::array<int32_t, 3> used_ = {};
  std::array<int32_t, 3> pinned_ = {};
  std::array<int32_t, 3> slabs_of_ = {};      // bound to each kind
  std::array<int32_t, 3> pinned_slabs_ = {};  // of those, with something pinned
};

}  // namespace asymserve
