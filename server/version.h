#pragma once

#include <string_view>

namespace asymserve {

inline constexpr std::string_view kVersion = ASYMSERVE_VERSION;

}  // namespace asymserve
