#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace asymserve {

/// A regular file of at most kMaxYamlBytes + 1 bytes; more is not read.
absl::StatusOr<std::string> ReadConfigFile(const std::string& path);

}  // namespace asymserve
