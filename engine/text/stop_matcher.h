#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace asymserve {

/// Looks for several strings in a text that comes in pieces: one Knuth-Morris-Pratt automaton for
/// each, amortized O(strings) per byte. What it finds does not depend on how the text is cut.
class StopMatcher {
 public:
  struct Match {
    int index;      // of the string
    size_t end;     // behind the match, in the piece given to Feed
    size_t length;  // of the string
  };

  /// Empty strings never match.
  explicit StopMatcher(const std::vector<std::string>& strings);

  bool empty() const { return patterns_.empty(); }

  /// Reads on until the first byte that completes a string; of several it completes, the longest
  /// (then the first in order) is the match. Not called again after a match.
  std::optional<Match> Feed(std::string_view piece);

  /// The longest end of the text so far that begins one of the strings, in bytes.
  size_t held_bytes() const;

 private:
  struct Pattern {
    std::string text;
    int index;
    std::vector<uint32_t> border;  // [i]: longest proper border of the first i + 1 bytes
    uint32_t matched = 0;          // bytes of `text` that the text so far ends with
  };
  std::vector<Pattern> patterns_;
};

}  // namespace asymserve
