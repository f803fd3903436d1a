#pragma once

#include <string>
#include <vector>

#include "config/config.h"
#include "config/option.h"

namespace asymserve {

/// An option that two configurations have differently.
struct OptionChange {
  const Option* option = nullptr;
  std::string from, to;  // as text, long ones cut
};

/// In the order of the table.
std::vector<OptionChange> Changes(const Config& from, const Config& to);

/// "engine.threads: 2 -> 4".
std::string ToString(const OptionChange& change);

/// Gives `to` the value that `from` has.
void CopyValue(const Option& option, const Config& from, Config& to);

}  // namespace asymserve
