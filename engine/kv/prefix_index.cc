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
    if (node->resumes()) match = static_cast<int32_t>(i) + 1;
  }
  return match;
}

bool PrefixIndex::Resumes(const PrefixHash& hash) const {
  const Node* node = Find(hash);
  return node != nullptr && node->resumes();
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
    node->number = ++made_;
    node->parent = parent;
    node->exact = precision == KvPrecision::kExact;
    for (Part* part : {&node->lasting, &node->resuming}) {
      part->node = node.get();
      part->number = ++made_;
    }
    if (parent != nullptr) parent->children.emplace(node->number, node.get());
  }
  KeepPages(*node, pages, tokens, precision, pool);
  Touch(*node);
  // Its publisher pins them.
  for (Part* part : {&node->lasting, &node->resuming}) {
    if (!part->parked && AllPinned(*part, pool)) Park(*part);
  }
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
  const bool needs_resuming = !node.resumes();
  const auto keep = [&](Part& part, int32_t page, PageId KvPage::*field, KvRecord kind) {
    const PageId id = pages[static_cast<size_t>(page)].*field;
    if (id == kNoPage) return;
    pool.Keep(kind, id);
    part.records.push_back({page, field, kind, id});
    if (&part == &node.resuming) resuming_.insert({KeyOf(kind, id), part.number, &part});
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

void PrefixIndex::Stamp(Part& part) {
  const uint64_t before = part.stamp;
  part.stamp = ++clock_;
  if (part.records.empty() || part.parked) return;
  auto entry = evictable_.extract(before);
  if (entry.empty()) {
    evictable_.emplace_hint(evictable_.end(), part.stamp, &part);
  } else {
    entry.key() = part.stamp;
    evictable_.insert(evictable_.end(), std::move(entry));
  }
}

/// A node was used and so were its predecessors: those last, for they carry the others.
void PrefixIndex::Touch(Node& node) {
  Stamp(node.resuming);
  for (Node* n = &node; n != nullptr; n = n->parent) Stamp(n->lasting);
}

bool PrefixIndex::AllPinned(const Part& part, const RecordPool& pool) {
  return std::all_of(part.records.begin(), part.records.end(),
                     [&](const Held& held) { return pool.pins(held.kind, held.id) > 0; });
}

void PrefixIndex::Park(Part& part) {
  if (part.records.empty()) return;
  evictable_.erase(part.stamp);
  part.parked = true;
  for (const Held& held : part.records) {
    parked_.insert({KeyOf(held.kind, held.id), part.number, &part});
  }
}

void PrefixIndex::Unpark(Part& part) {
  for (const Held& held : part.records) {
    parked_.erase({KeyOf(held.kind, held.id), part.number, &part});
  }
  part.parked = false;
  evictable_.emplace(part.stamp, &part);
}

void PrefixIndex::OnUnpinned(KvRecord kind, PageId id) {
  const Holder first = {KeyOf(kind, id), 0, nullptr};
  for (auto found = parked_.lower_bound(first);
       found != parked_.end() && found->record == first.record;
       found = parked_.lower_bound(first)) {
    Unpark(*found->part);
  }
}

bool PrefixIndex::EvictOldest(RecordPool& pool) {
  while (!evictable_.empty()) {
    Part& part = *evictable_.begin()->second;
    if (AllPinned(part, pool)) {
      Park(part);
      continue;
    }
    Node& node = *part.node;
    if (&part == &node.lasting) {
      Node* const parent = node.parent;
      Remove(node, pool);
      RemoveUseless(parent, pool);
    } else {
      DropPart(part, pool);
      RemoveUseless(&node, pool);
    }
    return true;
  }
  return false;
}

void PrefixIndex::Forget(KvRecord kind, PageId id, RecordPool& pool) {
  const Holder first = {KeyOf(kind, id), 0, nullptr};
  for (auto found = resuming_.lower_bound(first);
       found != resuming_.end() && found->record == first.record;
       found = resuming_.lower_bound(first)) {
    Part& part = *found->part;
    DropPart(part, pool);
    RemoveUseless(part.node, pool);
  }
}

void PrefixIndex::DropPart(Part& part, RecordPool& pool) {
  if (part.stamp == 0) return;
  if (part.parked) Unpark(part);
  evictable_.erase(part.stamp);
  for (const Held& held : part.records) {
    pool.Drop(held.kind, held.id);
    if (&part == &part.node->resuming) {
      resuming_.erase({KeyOf(held.kind, held.id), part.number, &part});
    }
  }
  evictions_ += part.records.empty() ? 0 : 1;
  part.records.clear();
  part.stamp = 0;
}

void PrefixIndex::Remove(Node& node, RecordPool& pool) {
  Node* last = &node;
  while (true) {
    while (!last->children.empty()) last = last->children.rbegin()->second;
    Node* const parent = last->parent;
    const bool done = last == &node;
    RemoveLeaf(*last, pool);
    if (done) return;
    last = parent;
  }
}

void PrefixIndex::RemoveLeaf(Node& node, RecordPool& pool) {
  ASYMSERVE_CHECK(node.children.empty());
  DropPart(node.resuming, pool);
  DropPart(node.lasting, pool);
  if (node.parent != nullptr) node.parent->children.erase(node.number);
  nodes_.erase(PrefixHash{node.hash});
}

void PrefixIndex::RemoveUseless(Node* node, RecordPool& pool) {
  const auto none_pinned = [&](const Part& part) {
    return std::all_of(part.records.begin(), part.records.end(),
                       [&](const Held& held) { return pool.pins(held.kind, held.id) == 0; });
  };
  while (node != nullptr && node->children.empty() && !node->resumes() &&
         none_pinned(node->lasting)) {
    Node* const parent = node->parent;
    RemoveLeaf(*node, pool);
    node = parent;
  }
}

std::vector<PrefixIndex::Kept> PrefixIndex::ListKept() const {
  std::map<uint64_t, Kept> by_stamp;
  for (const auto& [hash, node] : nodes_) {
    for (const Part* part : {&node->lasting, &node->resuming}) {
      if (part->stamp == 0) continue;
      Kept& kept = by_stamp[part->stamp];
      kept.hash = hash;
      kept.resuming = part == &node->resuming;
      for (const Held& held : part->records) kept.records.emplace_back(held.kind, held.id);
    }
  }
  std::vector<Kept> all;
  all.reserve(by_stamp.size());
  for (auto& [stamp, kept] : by_stamp) all.push_back(std::move(kept));
  return all;
}

void PrefixIndex::CheckInvariants(const RecordPool& pool) const {
  size_t listed = 0, resuming = 0, parked = 0;
  for (const auto& [hash, node] : nodes_) {
    ASYMSERVE_CHECK(node->hash == hash);
    // Somebody may begin after it or after a descendant, or may continue it.
    const bool used = node->resumes() || !node->children.empty() || !node->lasting.records.empty();
    ASYMSERVE_CHECK(used);
    ASYMSERVE_CHECK(node->lasting.stamp > node->resuming.stamp);
    const Node* parent = node->parent;
    if (parent != nullptr) {
      ASYMSERVE_CHECK(parent->lasting.stamp > node->lasting.stamp);
      ASYMSERVE_CHECK(parent->children.at(node->number) == node.get());
    }
    for (const Part* part : {&node->lasting, &node->resuming}) {
      ASYMSERVE_CHECK(part->node == node.get());
      ASYMSERVE_CHECK(part->stamp != 0 || part->records.empty());
      ASYMSERVE_CHECK(!part->parked || (!part->records.empty() && AllPinned(*part, pool)));
      const bool in_order = !part->records.empty() && !part->parked;
      ASYMSERVE_CHECK(!in_order || evictable_.at(part->stamp) == part);
      listed += in_order ? 1 : 0;
      parked += part->parked ? part->records.size() : 0;
    }
    resuming += node->resuming.records.size();
  }
  ASYMSERVE_CHECK(evictable_.size() == listed);
  ASYMSERVE_CHECK(resuming_.size() == resuming && parked_.size() == parked);
}

}  // namespace asymserve
