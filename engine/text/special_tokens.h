#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace asymserve {

/// Finds tokens that are written out in a text: the leftmost, of those that start there the
/// longest. A trie over bytes.
class SpecialTokens {
 public:
  struct Match {
    size_t begin, length;  // bytes
    int32_t id;
  };

  SpecialTokens() : nodes_(1) {}

  /// `written` is not empty. Of equal texts the first stays.
  void Add(std::string_view written, int32_t id, bool is_control);

  /// The first token at or behind `from`; control tokens only with `parse_control`.
  std::optional<Match> Find(std::string_view text, size_t from, bool parse_control) const;

 private:
  struct Node {
    int32_t text_id = -1;     // a user-defined token ends here
    int32_t control_id = -1;  // a control token ends here
  };
  static uint64_t Edge(uint32_t node, char byte) {
    return (uint64_t{node} << 8) | static_cast<uint8_t>(byte);
  }

  std::vector<Node> nodes_;                        // the first is the root
  absl::flat_hash_map<uint64_t, uint32_t> edges_;  // node and byte to node
  std::array<bool, 256> starts_{};                 // bytes that leave the root
};

}  // namespace asymserve
