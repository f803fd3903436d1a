#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>

#include "CLI/CLI.hpp"
#include "absl/status/status.h"

namespace asymserve {

/// `asymserve api-key`.
struct ApiKeyArguments {
  std::string name, tenant;
  int32_t days = 0;  // until it expires; 0: never
};

void AddApiKeyOptions(CLI::App& command, ApiKeyArguments& arguments);

/// Makes a random key of 256 bits. `entry` gets the lines for server.api_keys_file, `secret` the
/// key, which is nowhere else.
absl::Status RunApiKey(const ApiKeyArguments& arguments, std::ostream& entry, std::ostream& secret);

}  // namespace asymserve
