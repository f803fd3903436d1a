#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace asymserve {

/// Writes a file as a whole: after OK, and after a crash at any time, `path` holds either what it
/// held before or all of `bytes`, on disk. Goes through a temporary file in the same folder, which
/// an error removes. A symbolic link is replaced. Errors name the path and what failed.
absl::Status WriteFileAtomically(const std::string& path, std::span<const std::byte> bytes);

}  // namespace asymserve
