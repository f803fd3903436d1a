#pragma once

#include <string>

#include "config/config.h"

namespace asymserve {

/// All options as YAML that ParseConfig reads back as the same configuration. Text is written byte
/// for byte, UTF-8 or not.
std::string WriteYaml(const Config& config);

}  // namespace asymserve
