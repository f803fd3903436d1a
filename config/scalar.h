#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// Values as text. Strict: the whole text, no blanks, no other notation; nullopt otherwise.

namespace asymserve {

/// Decimal, with an optional minus.
std::optional<int32_t> ParseInt32(std::string_view text);
/// Decimal, finite: 20, 0.5, 1e3.
std::optional<double> ParseDouble(std::string_view text);
/// true or false.
std::optional<bool> ParseBool(std::string_view text);
/// Bytes, or a whole number of KiB, MiB, GiB or TiB: 1048576, 512MiB.
std::optional<int64_t> ParseSize(std::string_view text);
/// The shortest text that ParseSize reads back: 512MiB.
std::string FormatSize(int64_t bytes);
/// The shortest text that ParseDouble reads back.
std::string FormatNumber(double value);
/// HOST:PORT with a port up to 65535; an IPv6 host is in brackets.
bool IsAddress(std::string_view text);

}  // namespace asymserve
