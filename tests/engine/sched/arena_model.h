#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "engine/kv/ids.h"
#include "engine/kv/page.h"
#include "engine/kv/record_pool.h"

namespace asymserve {

/// Which page of which text a record holds, how many of its tokens, and what of them. Whole chunks
/// of a prompt are one text for all whose prompts begin with them; the rest is one for each life of
/// each sequence, and what it computed without refinements is one that it shares with nobody.
struct Content {
  enum class Part : uint8_t { kBoth, kExactKeys, kExactValues };
  uint64_t text = 0;
  int32_t page = -1;
  int32_t tokens = 0;
  Part part = Part::kBoth;
};

/// The arena as bytes would be: a record of one kind loses its content when a record of another
/// kind is written over it.
class ArenaModel {
 public:
  explicit ArenaModel(const ArenaCut& cut) : cut_(cut), slabs_(static_cast<size_t>(cut.slabs)) {}

  Content& Write(KvRecord kind, PageId id) {
    Slab& slab = SlabOf(kind, id);
    if (slab.kind != kind) {
      slab.kind = kind;
      slab.records.clear();
    }
    return slab.records[Index(id)];
  }
  std::optional<Content> Read(KvRecord kind, PageId id) {
    Slab& slab = SlabOf(kind, id);
    const auto found = slab.records.find(Index(id));
    if (slab.kind != kind || found == slab.records.end()) return std::nullopt;
    return found->second;
  }

 private:
  struct Slab {
    std::optional<KvRecord> kind;
    std::map<int32_t, Content> records;
  };
  Slab& SlabOf(KvRecord kind, PageId id) {
    const int32_t per_slab = cut_.per_slab[static_cast<size_t>(kind)];
    return slabs_.at(static_cast<size_t>(Index(id) / per_slab));
  }

  ArenaCut cut_;
  std::vector<Slab> slabs_;
};

}  // namespace asymserve
