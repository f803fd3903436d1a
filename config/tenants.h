#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace asymserve {

inline constexpr char kTenantsExpected[] =
    "up to 64 NAME=WEIGHT separated by commas, each name once, 1 to 64 printable ASCII characters "
    "without spaces, commas and = and not `other`, weights of 1 to 10000";

/// "gold=4,silver=2" as names and weights; "" is none. Absent: it is not what kTenantsExpected
/// says.
std::optional<std::vector<std::pair<std::string, int32_t>>> ParseTenants(std::string_view text);

}  // namespace asymserve
