#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace asymserve {

/// Insertions, deletions, substitutions and swaps of neighbours that turn one text into the other
/// (optimal string alignment distance). Quadratic: for short texts.
size_t EditDistance(std::string_view a, std::string_view b);

/// The known key that somebody who wrote `key` most likely meant: the same name in another section,
/// one that begins like it, or one a few letters away. Empty if none is near. First of equals.
std::string_view NearestKey(std::string_view key, std::span<const std::string_view> known);

}  // namespace asymserve
