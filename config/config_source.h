#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config.h"

namespace asymserve {

/// Where a configuration comes from: a file, then single options, of which the last wins.
struct ConfigSource {
  std::string path;                    // empty: the defaults
  std::vector<std::string> overrides;  // "a.b=c"
};

/// LoadConfig, then ApplyOverride. Values are checked one by one, relations between them are not:
/// CheckSource.
absl::StatusOr<Config> ReadSource(const ConfigSource& source);

/// ValidateConfig; a message begins with the origin of what is wrong.
absl::Status CheckSource(const ConfigSource& source, const Config& config);

/// "FILE:LINE" or "--set": where the first of the options that is set anywhere is set; empty if all
/// are left at their defaults. Reads the file again: for messages.
std::string FindOrigin(const ConfigSource& source, std::span<const std::string_view> keys);

}  // namespace asymserve
