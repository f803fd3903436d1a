#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace asymserve {

/// Catches a misspelt path before work of minutes: InvalidArgument when the folder of `path` does
/// not exist or `path` is a folder. Messages begin with `option`.
absl::Status CheckOutputPath(std::string_view option, const std::string& path);

}  // namespace asymserve
