#pragma once

#include <cstdint>
#include <vector>

#include "engine/kv/ids.h"

namespace asymserve {

/// Hands out page ids. Counts only; the bytes live in a backend. Invariant: used + free = total
/// after every call; a page is never handed out twice and never freed twice (checked). One thread.
class PagePool {
 public:
  explicit PagePool(int32_t pages);

  int32_t total() const { return static_cast<int32_t>(in_use_.size()); }
  int32_t free() const { return static_cast<int32_t>(free_.size()); }
  int32_t used() const { return total() - free(); }

  /// Appends `count` pages to `pages`; false, and nothing done, if fewer are free.
  [[nodiscard]] bool Allocate(int32_t count, std::vector<PageId>& pages);
  /// Takes pages back and clears the vector.
  void Release(std::vector<PageId>& pages);

 private:
  std::vector<PageId> free_;  // last in, first out: warm pages first
  std::vector<bool> in_use_;
};

}  // namespace asymserve
