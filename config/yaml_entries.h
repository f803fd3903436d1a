#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace asymserve {

/// One `key: value` of a YAML file; nested keys are joined by dots.
struct YamlEntry {
  enum class Kind : uint8_t {
    kPlain,   // bare text: a number, a word, true
    kQuoted,  // 'text' or "text": a string whatever it looks like
    kNull,    // nothing, ~ or null
    kList,    // [ ... ] or - ...; its items are dropped
    kMap,     // a section; its entries follow
  };
  std::string key;
  Kind kind = Kind::kPlain;
  std::string text;  // of a scalar
  int line = 0;      // of the key, from 1
};

/// Reads the subset of YAML that a configuration needs: one document, a map of maps and scalars.
/// Anchors, aliases, tags, duplicate keys and keys that are not plain text are refused, and input
/// that is larger than kMaxYamlBytes. InvalidArgument: "FILE:LINE: what is wrong".
absl::StatusOr<std::vector<YamlEntry>> ReadYamlEntries(std::string_view text,
                                                       const std::string& file);

inline constexpr size_t kMaxYamlBytes = 1 << 20;

/// Text of unknown origin for a message: control characters and quotes escaped, cut after 40 bytes.
std::string Printable(std::string_view text);
/// The same in double quotes.
std::string Quoted(std::string_view text);

}  // namespace asymserve
