#pragma once

#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "config/config.h"

namespace asymserve {

struct Violation {
  absl::Status status;                 // as of ValidateConfig
  std::vector<std::string_view> keys;  // the option that the message names, then those it is about
};

/// The first thing that is wrong with a configuration; an OK status where nothing is.
Violation FindViolation(const Config& config);

}  // namespace asymserve
