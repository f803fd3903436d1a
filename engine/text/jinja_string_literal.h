#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace asymserve::jinja {

/// The value of a string literal without its quotes: Python's escapes, of which an unknown one
/// keeps its backslash. InvalidArgument for a malformed escape, a surrogate or \N{name}.
absl::StatusOr<std::string> DecodeStringLiteral(std::string_view body);

}  // namespace asymserve::jinja
