#pragma once

#include <string>
#include <string_view>

#include "absl/strings/escaping.h"

namespace asymserve {

/// A name from an untrusted file, made fit for an error message: quoted, escaped, at most 80 bytes
/// of it.
inline std::string Printable(std::string_view name) {
  constexpr size_t kLongest = 80;
  const std::string head(name.substr(0, kLongest));
  return "'" + absl::CHexEscape(head) + (name.size() > kLongest ? "...'" : "'");
}

}  // namespace asymserve
