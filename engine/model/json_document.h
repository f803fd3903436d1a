#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include <nlohmann/json.hpp>

namespace asymserve {

/// Parses an untrusted JSON text whose root is an object. InvalidArgument names `what` and the
/// problem: no JSON, nested more than 16 deep, or a key twice in one object (of which the library
/// would silently take the last).
absl::StatusOr<nlohmann::json> ParseJsonObject(std::string_view text, std::string_view what);

}  // namespace asymserve
