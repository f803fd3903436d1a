#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace asymserve {

/// Logits of positions `from` on, one row each.
struct ReferenceLogits {
  int32_t from = 0;
  size_t vocabulary = 0;
  std::vector<float> values;

  std::span<const float> At(int32_t position) const {
    return std::span(values).subspan(static_cast<size_t>(position - from) * vocabulary, vocabulary);
  }
};

}  // namespace asymserve
