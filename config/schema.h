#pragma once

#include <string>

namespace asymserve {

/// JSON Schema (draft 2020-12) of the configuration file, from the table of options and the
/// comments of the reference. It says what one option may be, not how two must fit each other, and
/// of sizes with a unit not the range.
std::string ConfigSchema();

}  // namespace asymserve
