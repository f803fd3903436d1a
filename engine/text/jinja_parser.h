#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "engine/text/jinja_ast.h"

namespace asymserve::jinja {

/// Parses a whole template (valid UTF-8). InvalidArgument names the line and the construct that is
/// malformed or outside the subset.
absl::StatusOr<Block> Parse(std::string_view source);

}  // namespace asymserve::jinja
