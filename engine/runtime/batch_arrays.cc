#include "engine/runtime/batch_arrays.h"

namespace asymserve {

void BatchArrays::Clear() {
  tokens_.clear();
  positions_.clear();
  token_offset_.assign(1, 0);
  page_offset_.assign(1, 0);
  logit_rows_.clear();
  pages_.clear();
  seals_.clear();
}

void BatchArrays::Add(std::span<const int32_t> tokens, int32_t begin, std::span<const KvPage> pages,
                      int32_t rows) {
  const auto count = static_cast<int32_t>(tokens.size());
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  for (int32_t i = 0; i < count; ++i) positions_.push_back(begin + i);
  pages_.insert(pages_.end(), pages.begin(), pages.end());
  const auto end = static_cast<int32_t>(tokens_.size());
  for (int32_t row = end - rows; row < end; ++row) logit_rows_.push_back(row);
  token_offset_.push_back(end);
  page_offset_.push_back(static_cast<int32_t>(pages_.size()));
}

}  // namespace asymserve
