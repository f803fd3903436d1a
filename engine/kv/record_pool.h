#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/kv/ids.h"
#include "engine/kv/layout.h"

namespace asymserve {

/// How an arena is cut: into slabs of one size, each used for records of one kind at a time. Page
/// id i of a kind is record i % per_slab of slab i / per_slab.
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

/// Hands out the records of an arena. Counts only; the bytes live in a backend. A record is never
/// handed out twice and never freed twice (checked). One thread.
class RecordPool {
 public:
  explicit RecordPool(const ArenaCut& cut);

  /// kNoPage when neither a slab of this kind nor an empty slab has room.
  PageId Allocate(KvRecord kind);
  void Release(KvRecord kind, PageId id);

  int32_t used(KvRecord kind) const { return used_[static_cast<size_t>(kind)]; }
  int32_t empty_slabs() const { return static_cast<int32_t>(empty_.size()); }
  int32_t slabs() const { return cut_.slabs; }
  /// Free records in slabs of this kind.
  int32_t partial_room(KvRecord kind) const {
    const auto k = static_cast<size_t>(kind);
    return slabs_of_[k] * cut_.per_slab[k] - used_[k];
  }

 private:
  struct Slab {
    std::vector<bool> taken;
    int32_t used = 0;
  };

  ArenaCut cut_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> empty_;                   // no records; last in, first out
  std::array<std::vector<int32_t>, 3> partial_;  // by kind: slabs with room
  std::array<int32_t, 3> used_ = {};
  std::array<int32_t, 3> slabs_of_ = {};  // bound to each kind
};

}  // namespace asymserve
