#include "engine/kv/prefix_index.h"

#include <algorithm>

#include "engine/base/check.h"

namespace asymserve {

PrefixIndex::Node* PrefixIndex::Find(const PrefixHash& hash) const {
  const auto found = nodes_.find(hash);
  return found == nodes_.end() ? nullptr : found->second.get();
}

int32_t PrefixIndex::Match(std::span<const PrefixHash> chunks) const {
  int32_t match = 0;
  for (size_t i = 0; i < chunks.size(); ++i) {
    const Node* node = Find(chunks[i]);
    if (node == nullptr) break;
    if (node->resuming.stamp != 0) match = static_cast<int32_t>(i) + 1;
  }
  return match;
}

bool PrefixIndex::Resumes(const PrefixHash& hash) const {
  const Node* node = Find(hash);
  return node != nullptr && node->resuming.stamp != 0;
}

void PrefixIndex::Resume(const PrefixHash& hash, int32_t tokens, KvPrecision precision,
                         RecordPool& pool, std::vector<KvPage>& pages) {
  ASYMSERVE_CHECK(pages.empty() && Resumes(hash));
  const int32_t complete = CompleteAt(tokens);
  pages.resize(static_cast<size_t>(tokens / scheme_.page_tokens));
  const auto take = [&](const Part& part) {
    for (const Held& held : part.records) {
      pages.at(static_cast<size_t>(held.page)).*held.field = held.id;
      pool.Pin(held.kind, held.id);
    }
  };
  Node& last = *Find(hash);
  ASYMSERVE_CHECK(last.exact == (precision == KvPrecision::kExact));
  for (const Node* node = &last; node != nullptr; node = node->parent) take(node->lasting);
  take(last.resuming);
  for (int32_t i = 0; i < std::ssize(pages); ++i) {
    KvPage& page = pages[static_cast<size_t>(i)];
    page.exact = precision == KvPrecision::kExact;
    if (!scheme_.seals(precision)) continue;
    page.key_tier = TierOf(scheme_, KvTensor::kKey, i, complete);
    page.value_tier = TierOf(scheme_, KvTensor::kValue, i, complete);
  }
  Touch(last);
}

void PrefixIndex::Publish(const PrefixHash* parent_hash, const PrefixHash& hash, int32_t tokens,
                          std::span<const KvPage> pages, KvPrecision precision, RecordPool& pool) {
  if (scheme_.chunk_tokens % scheme_.page_tokens != 0) return;
  Node* const parent = parent_hash == nullptr ? nullptr : Find(*parent_hash);
  if (parent_hash != nullptr && parent == nullptr) return;
  std::unique_ptr<Node>& node = nodes_[hash];
  if (node == nullptr) {
    node = std::make_unique<Node>();
    node->hash = hash;
    node->parent = parent;
    node->exact = precision == KvPrecision::kExact;
    if (parent != nullptr) parent->children.push_back(node.get());
  }
  KeepPages(*node, pages, tokens, precision, pool);
  Touch(*node);
}

/// Adds the parts that the node does not have.
void PrefixIndex::KeepPages(Node& node, std::span<const KvPage> pages, int32_t tokens,
                            KvPrecision precision, RecordPool& pool) {
  const bool seals = scheme_.seals(precision);
  const int32_t complete = CompleteAt(tokens);
  const int32_t before = CompleteAt(tokens - 1);
  // Whether both tensors of a page are as they will stay, but for a refinement.
  const auto lasts = [&](int32_t page, int32_t at) {
    return page < at && (!seals || page < scheme_.sink_pages ||
                         (TierOf(scheme_, KvTensor::kKey, page, at) != KvTier::kNear &&
                          TierOf(scheme_, KvTensor::kValue, page, at) != KvTier::kNear));
  };
  const bool needs_lasting = node.lasting.stamp == 0;
  const bool needs_resuming = node.resuming.stamp == 0;
  const auto keep = [&](Part& part, int32_t page, PageId KvPage::*field, KvRecord kind) {
    const PageId id = pages[static_cast<size_t>(page)].*field;
    if (id == kNoPage) return;
    pool.Keep(kind, id);
    part.records.push_back({page, field, kind, id});
    if (&part == &node.resuming) resuming_here_.emplace(KeyOf(kind, id), &node);
  };
  for (int32_t i = 0; i < tokens / scheme_.page_tokens; ++i) {
    const bool now = lasts(i, complete);
    if (now && lasts(i, before)) {  // an ancestor has it, but for its refinement
      if (needs_resuming) keep(node.resuming, i, &KvPage::refinement, KvRecord::kRefinement);
      continue;
    }
    if (now ? needs_lasting : needs_resuming) {
      Part& part = now ? node.lasting : node.resuming;
      keep(part, i, &KvPage::near, KvRecord::kNear);
      keep(part, i, &KvPage::exact_values, KvRecord::kNear);
      keep(part, i, &KvPage::base, KvRecord::kBase);
    }
    if (needs_resuming) keep(node.resuming, i, &KvPage::refinement, KvRecord::kRefinement);
  }
}

/// Makes a part the most recently used.
void PrefixIndex::Stamp(Node& node, bool resuming) {
  Part& part = resuming ? node.resuming : node.lasting;
  by_use_.erase(part.stamp);
  part.stamp = ++clock_;
  by_use_.emplace(part.stamp, Use{&node, resuming});
}

/// A node was used and so were its predecessors: those last, for they carry the others.
void PrefixIndex::Touch(Node& node) {
  Stamp(node, /*resuming=*/true);
  for (Node* n = &node; n != nullptr; n = n->parent) Stamp(*n, /*resuming=*/false);
}

bool PrefixIndex::AllPinned(const Part& part, const RecordPool& pool) {
  return std::all_of(part.records.begin(), part.records.end(),
                     [&](const Held& held) { return pool.pins(held.kind, held.id) > 0; });
}

bool PrefixIndex::EvictOldest(RecordPool& pool) {
  for (size_t looks = by_use_.size(); looks > 0; --looks) {
    const auto [node, resuming] = by_use_.begin()->second;
    const Part& part = resuming ? node->resuming : node->lasting;
    const bool useless = node->resuming.stamp == 0 && node->children.empty();
    if (AllPinned(part, pool) && !useless) {  // in use, or nothing to gain
      Stamp(*node, resuming);
      continue;
    }
    ++evictions_;
    const bool carries = !node->lasting.records.empty() || !node->children.empty();
    if (resuming && carries) {
      DropPart(*node, /*resuming=*/true, pool);
    } else {
      Remove(*node, pool);
    }
    return true;
  }
  return false;
}

void PrefixIndex::Forget(KvRecord kind, PageId id, RecordPool& pool) {
  for (auto found = resuming_here_.find(KeyOf(kind, id)); found != resuming_here_.end();
       found = resuming_here_.find(KeyOf(kind, id))) {
    ++evictions_;
    DropPart(*found->second, /*resuming=*/true, pool);
  }
}

void PrefixIndex::DropPart(Node& node, bool resuming, RecordPool& pool) {
  Part& part = resuming ? node.resuming : node.lasting;
  for (const Held& held : part.records) {
    pool.Drop(held.kind, held.id);
    if (!resuming) continue;
    auto [here, end] = resuming_here_.equal_range(KeyOf(held.kind, held.id));
    while (here->second != &node) ++here;
    resuming_here_.erase(here);
  }
  part.records.clear();
  by_use_.erase(part.stamp);
  part.stamp = 0;
}

/// Forgets a node and its descendants, which no longer have all their predecessors.
void PrefixIndex::Remove(Node& node, RecordPool& pool) {
  while (!node.children.empty()) Remove(*node.children.back(), pool);
  DropPart(node, /*resuming=*/true, pool);
  DropPart(node, /*resuming=*/false, pool);
  if (node.parent != nullptr) {
    std::vector<Node*>& siblings = node.parent->children;
    siblings.erase(std::find(siblings.begin(), siblings.end(), &node));
  }
  nodes_.erase(PrefixHash{node.hash});
}

}  // namespace asymserve
