#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/base/sha256.h"
#include "engine/kv/page_tier.h"
#include "engine/kv/record_pool.h"

// The prefix cache as bookkeeping: which records hold the pages of prompts that were computed
// before. Prompts are known by chains of hashes, one for each whole chunk, that cover the chunk and
// everything before it, and all else that the pages' bytes depend on (runtime/prefix_hash.h).
//
// A sequence that is about to compute position s, a multiple of the chunk, reads pages in the tiers
// of that position (kv/page_tier.h): sealed ones, refinements of the newest of those, near records
// of the window and the sink. So a node of the index, which stands for a chunk and its
// predecessors, keeps two kinds of records: those that every longer prefix reads as well (sealed
// pages' base, pages that stay near for ever), and those that only a sequence that begins right
// here needs. The second kind costs most and is dropped first; a node without it still carries its
// descendants.
//
// The last chunk of a prompt is rarely whole. Its whole pages are near; a node for them keeps those
// of the second kind only, for prompts that are the same to their end.
//
// Least recently used goes first. Whoever uses a node uses its predecessors after it, so a node
// goes before those that carry it; it goes with them when running sequences pin all that it has,
// for then nobody gains by its going first. Parts that are pinned altogether are not in that order:
// they are parked, until the pool says that one of their records is pinned no more (OnUnpinned). No
// clock, no threads, nothing depends on addresses.

namespace asymserve {

/// Names a part of a prompt and everything before it.
using PrefixHash = Sha256Digest;

/// The parts of a prompt that can be shared.
struct PrefixChain {
  std::vector<PrefixHash> chunks;  // each whole chunk
  /// The whole pages of the last chunk that leave a token to compute: what a prompt that is the
  /// same to its end, as those of one request are, can begin after.
  PrefixHash tail = {};
  int32_t tail_tokens = 0;  // and the chunks before; 0: those pages are none
};

class PrefixIndex {
 public:
  /// An index for a scheme whose chunks are not whole pages stays empty.
  explicit PrefixIndex(const KvScheme& scheme) : scheme_(scheme) {}

  /// After how many of the chunks a sequence can begin: the most whose records are all here.
  int32_t Match(std::span<const PrefixHash> chunks) const;
  /// Whether a sequence can begin after what `hash` names.
  bool Resumes(const PrefixHash& hash) const;
  /// Fills the page table of a sequence that begins after `tokens` tokens, those that `hash` names
  /// and that it Resumes, and pins its records.
  void Resume(const PrefixHash& hash, int32_t tokens, KvPrecision precision, RecordPool& pool,
              std::vector<KvPage>& pages);
  /// Keeps what a sequence of that precision reads as it begins to compute the position after
  /// `tokens` tokens, whole pages, which `hash` names. `parent` names its whole chunks before that;
  /// null: it has none. Does nothing when the parent is not here any more.
  void Publish(const PrefixHash* parent, const PrefixHash& hash, int32_t tokens,
               std::span<const KvPage> pages, KvPrecision precision, RecordPool& pool);
  /// Drops a record of those that only sequences need that begin at one place, and all of those.
  void Forget(KvRecord kind, PageId id, RecordPool& pool);
  /// Drops the records that were not used for longest and are not pinned. False: no record that is
  /// kept can be had.
  bool EvictOldest(RecordPool& pool);
  /// To be called when RecordPool::Release says so.
  void OnUnpinned(KvRecord kind, PageId id);

  /// The records of one part.
  struct Kept {
    PrefixHash hash = {};
    bool resuming = false;
    std::vector<std::pair<KvRecord, PageId>> records;
  };
  /// All that is kept, least recently used first; for tests.
  std::vector<Kept> ListKept() const;

  size_t nodes() const { return nodes_.size(); }
  /// Parts that EvictOldest may have to look at.
  size_t listed() const { return evictable_.size(); }
  uint64_t evictions() const { return evictions_; }
  /// Checks all that this class states; for tests. Aborts on a broken one.
  void CheckInvariants(const RecordPool& pool) const;

 private:
  /// A record and its place in a page table.
  struct Held {
    int32_t page;
    PageId KvPage::*field;
    KvRecord kind;
    PageId id;
  };
  struct Node;
  struct Part {
    Node* node = nullptr;
    uint64_t number = 0;  // unique, of the part's whole life
    std::vector<Held> records;
    uint64_t stamp = 0;  // of the last use; 0: not here
    bool parked = false;
  };
  struct Node {
    PrefixHash hash = {};
    uint64_t number = 0;
    Node* parent = nullptr;
    std::map<uint64_t, Node*> children;  // by number
    bool exact = false;
    Part lasting;   // what longer prefixes read, too
    Part resuming;  // what only a sequence that begins here reads

    bool resumes() const { return resuming.stamp != 0; }
  };
  /// That a part has a record, ordered by record.
  struct Holder {
    uint64_t record;
    uint64_t number;  // the part's
    Part* part;

    bool operator<(const Holder& other) const {
      return record != other.record ? record < other.record : number < other.number;
    }
  };
  struct FirstBytes {
    size_t operator()(const PrefixHash& hash) const {
      size_t value;
      std::memcpy(&value, hash.data(), sizeof(value));
      return value;
    }
  };

  /// Pages that count as complete for the token behind `tokens` tokens of a prompt.
  int32_t CompleteAt(int32_t tokens) const {
    return tokens / scheme_.chunk_tokens * scheme_.chunk_tokens / scheme_.page_tokens;
  }
  Node* Find(const PrefixHash& hash) const;
  /// Makes a part the most recently used.
  void Stamp(Part& part);
  void Touch(Node& node);
  void KeepPages(Node& node, std::span<const KvPage> pages, int32_t tokens, KvPrecision precision,
                 RecordPool& pool);
  static bool AllPinned(const Part& part, const RecordPool& pool);
  /// Takes a part whose records are all pinned out of the order, and puts it back.
  void Park(Part& part);
  void Unpark(Part& part);
  void DropPart(Part& part, RecordPool& pool);
  static uint64_t KeyOf(KvRecord kind, PageId id) {
    return (static_cast<uint64_t>(kind) << 32) | static_cast<uint32_t>(Index(id));
  }
  /// Forgets a node and its descendants, which no longer have all their predecessors.
  void Remove(Node& node, RecordPool& pool);
  void RemoveLeaf(Node& node, RecordPool& pool);
  /// Forgets a node after which nobody can begin and that carries none, unless a running sequence
  /// pins of it and so may continue it; and then those that carried only it.
  void RemoveUseless(Node* node, RecordPool& pool);

  const KvScheme scheme_;
  std::unordered_map<PrefixHash, std::unique_ptr<Node>, FirstBytes> nodes_;
  std::map<uint64_t, Part*> evictable_;  // by stamp: parts with records that are not parked
  std::set<Holder> parked_;              // each record of each part that is parked
  std::set<Holder> resuming_;            // each record of each resuming part
  uint64_t clock_ = 0;                   // of stamps
  uint64_t made_ = 0;                    // nodes and parts
  uint64_t evictions_ = 0;
};

}  // namespace asymserve
