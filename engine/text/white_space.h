#pragma once

#include <cstddef>
#include <string_view>

namespace asymserve {

// Unicode's White_Space property, in valid UTF-8.

/// `text` without the white space it begins with.
std::string_view StripLeadingWhiteSpace(std::string_view text);
/// `text` without the white space it ends with.
std::string_view StripTrailingWhiteSpace(std::string_view text);

}  // namespace asymserve
