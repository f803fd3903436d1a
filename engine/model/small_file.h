#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace asymserve {

/// The whole of a text file of at most 64 MiB; nothing when there is none. Errors name the path.
absl::StatusOr<std::optional<std::string>> ReadSmallFile(const std::string& path);

}  // namespace asymserve
