#include "engine/text/stop_matcher.h"

#include <algorithm>

namespace asymserve {
namespace {

/// How much of `text` is matched after `matched` bytes of it and then `byte`.
uint32_t Advance(std::string_view text, const std::vector<uint32_t>& border, uint32_t matched,
                 char byte) {
  while (matched > 0 && text[matched] != byte) matched = border[matched - 1];
  return text[matched] == byte ? matched + 1 : 0;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& strings) {
  for (size_t i = 0; i < strings.size(); ++i) {
    if (strings[i].empty()) continue;
    Pattern pattern{strings[i], static_cast<int>(i), std::vector<uint32_t>(strings[i].size()), 0};
    for (size_t at = 1; at < pattern.text.size(); ++at) {
      pattern.border[at] =
          Advance(pattern.text, pattern.border, pattern.border[at - 1], pattern.text[at]);
    }
    patterns_.push_back(std::move(pattern));
  }
}

std::optional<StopMatcher::Match> StopMatcher::Feed(std::string_view piece) {
  for (size_t at = 0; at < piece.size(); ++at) {
    const Pattern* complete = nullptr;
    for (Pattern& pattern : patterns_) {
      pattern.matched = Advance(pattern.text, pattern.border, pattern.matched, piece[at]);
      if (pattern.matched < pattern.text.size()) continue;
      if (complete == nullptr || pattern.text.size() > complete->text.size()) complete = &pattern;
    }
    if (complete != nullptr) return Match{complete->index, at + 1, complete->text.size()};
  }
  return std::nullopt;
}

size_t StopMatcher::held_bytes() const {
  uint32_t held = 0;
  for (const Pattern& pattern : patterns_) held = std::max(held, pattern.matched);
  return held;
}

}  // namespace asymserve
