#include "engine/text/special_tokens.h"

namespace asymserve {

void SpecialTokens::Add(std::string_view written, int32_t id, bool is_control) {
  starts_[static_cast<uint8_t>(written.front())] = true;
  uint32_t node = 0;
  for (const char byte : written) {
    const auto [edge, is_new] =
        edges_.try_emplace(Edge(node, byte), static_cast<uint32_t>(nodes_.size()));
    if (is_new) nodes_.emplace_back();
    node = edge->second;
  }
  int32_t& slot = is_control ? nodes_[node].control_id : nodes_[node].text_id;
  if (slot < 0) slot = id;
}

std::optional<SpecialTokens::Match> SpecialTokens::Find(std::string_view text, size_t from,
                                                        bool parse_control) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto edge = edges_.find(Edge(node, text[at]));
      if (edge == edges_.end()) break;
      node = edge->second;
      int32_t id = nodes_[node].text_id;
      if (id < 0 && parse_control) id = nodes_[node].control_id;
      if (id >= 0) longest = Match{begin, at + 1 - begin, id};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace asymserve
