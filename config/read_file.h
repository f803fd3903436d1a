#pragma once

#include <cstddef>
#include <string>

#include "absl/status/statusor.h"

namespace asymserve {

/// The first `max_bytes` + 1 bytes of a regular file: the one more tells that it is too large.
/// NotFound, InvalidArgument (not a regular file) and PermissionDenied begin with the path.
absl::StatusOr<std::string> ReadRegularFile(const std::string& path, size_t max_bytes);

}  // namespace asymserve
