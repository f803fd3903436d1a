#include "engine/kv/page_pool.h"

#include "engine/base/check.h"

namespace asymserve {

PagePool::PagePool(int32_t pages) {
  ASYMSERVE_CHECK(pages >= 0);
  in_use_.assign(static_cast<size_t>(pages), false);
  free_.reserve(in_use_.size());
  for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(PageId{page});
}

bool PagePool::Allocate(int32_t count, std::vector<PageId>& pages) {
  ASYMSERVE_CHECK(count >= 0);
  if (count > free()) return false;
  for (int32_t i = 0; i < count; ++i) {
    const PageId page = free_.back();
    free_.pop_back();
    in_use_[static_cast<size_t>(Index(page))] = true;
    pages.push_back(page);
  }
  return true;
}

void PagePool::Release(std::vector<PageId>& pages) {
  for (const PageId page : pages) {
    ASYMSERVE_CHECK(Index(page) >= 0 && Index(page) < total());
    ASYMSERVE_CHECK(in_use_[static_cast<size_t>(Index(page))]);  // not freed twice
    in_use_[static_cast<size_t>(Index(page))] = false;
    free_.push_back(page);
  }
  pages.clear();
}

}  // namespace asymserve
