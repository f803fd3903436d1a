#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"

#include "engine/kv/scheme.h"

namespace asymserve {

/// Items of a model, [L][2][G] as in KvScheme::items.
inline size_t KvItemCount(const KvShape& shape) {
  return size_t{2} * static_cast<size_t>(shape.layers) * static_cast<size_t>(shape.kv_heads);
}

inline size_t KvItemIndex(const KvShape& shape, int32_t layer, KvTensor tensor, int32_t head) {
  return static_cast<size_t>((2 * layer + static_cast<int32_t>(tensor)) * shape.kv_heads + head);
}

/// "item 7 (keys of layer 1, head 1)".
inline std::string KvItemName(const KvShape& shape, size_t index) {
  const auto heads = static_cast<size_t>(shape.kv_heads);
  return absl::StrCat("item ", index, " (", index / heads % 2 == 0 ? "keys" : "values",
                      " of layer ", index / heads / 2, ", head ", index % heads, ")");
}

}  // namespace asymserve
