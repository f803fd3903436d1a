#pragma once

#include <string>
#include <string_view>

namespace asymserve {

/// UTF-8 as a JSON string, in double quotes.
std::string JsonText(std::string_view text);

}  // namespace asymserve
