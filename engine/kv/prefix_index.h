#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
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
// Least recently used goes first, and what a running sequence pins is passed over. No clock, no
// threads, nothing depends on addresses.

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
  /// Drops the records that were not used for longest and are not pinned. False: there are none.
  bool EvictOldest(RecordPool& pool);

  size_t nodes() const { return nodes_.size(); }
  uint64_t evictions() const { return evictions_; }

 private:
  /// A record and its place in a page table.
  struct Held {
    int32_t page;
    PageId KvPage::*field;
    KvRecord kind;
    PageId id;
  };
  struct Part {
    std::vector<Held> records;
    uint64_t stamp = 0;  // of the last use; 0: not here
  };
  struct Node {
    PrefixHash hash = {};
    Node* parent = nullptr;
    std::vector<Node*> children;
    bool exact = false;
    Part lasting;   // what longer prefixes read, too
    Part resuming;  // what only a sequence that begins here reads
  };
  struct Use {
    Node* node;
    bool resuming;
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
  void Stamp(Node& node, bool resuming);
  void Touch(Node& node);
  void KeepPages(Node& node, std::span<const KvPage> pages, int32_t tokens, KvPrecision precision,
                 RecordPool& pool);
  static bool AllPinned(const Part& part, const RecordPool& pool);
  void DropPart(Node& node, bool resuming, RecordPool& pool);
  static uint64_t KeyOf(KvRecord kind, PageId id) {
    return (static_cast<uint64_t>(kind) << 32) | static_cast<uint32_t>(Index(id));
  }
  void Remove(Node& node, RecordPool& pool);

  const KvScheme scheme_;
  std::unordered_map<PrefixHash, std::unique_ptr<Node>, FirstBytes> nodes_;
  std::map<uint64_t, Use> by_use_;                          // stamps are unique
  std::unordered_multimap<uint64_t, Node*> resuming_here_;  // by record of a resuming part
  uint64_t clock_ = 0;
  uint64_t evictions_ = 0;
};

}  // namespace asymserve
