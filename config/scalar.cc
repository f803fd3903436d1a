#include "config/scalar.h"

#include <array>
#include <charconv>
#include <cmath>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

template <typename T>
std::optional<T> ParseNumber(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || rest != end) return std::nullopt;
  return value;
}

struct SizeUnit {
  std::string_view suffix;
  int64_t bytes;
};
// Largest first.
constexpr std::array<SizeUnit, 5> kSizeUnits = {{{"TiB", int64_t{1} << 40},
                                                 {"GiB", int64_t{1} << 30},
                                                 {"MiB", int64_t{1} << 20},
                                                 {"KiB", int64_t{1} << 10},
                                                 {"", 1}}};

}  // namespace

std::optional<int32_t> ParseInt32(std::string_view text) {
  return ParseNumber<int32_t>(text);
}

std::optional<double> ParseDouble(std::string_view text) {
  const std::optional<double> value = ParseNumber<double>(text);
  if (value.has_value() && !std::isfinite(*value)) return std::nullopt;
  return value;
}

std::optional<bool> ParseBool(std::string_view text) {
  if (text == "true") return true;
  if (text == "false") return false;
  return std::nullopt;
}

std::optional<int64_t> ParseSize(std::string_view text) {
  for (const SizeUnit& unit : kSizeUnits) {
    if (!text.ends_with(unit.suffix)) continue;
    const auto count = ParseNumber<int64_t>(text.substr(0, text.size() - unit.suffix.size()));
    if (!count.has_value() || *count < 0 || *count > INT64_MAX / unit.bytes) return std::nullopt;
    return *count * unit.bytes;
  }
  return std::nullopt;
}

std::string FormatSize(int64_t bytes) {
  for (const SizeUnit& unit : kSizeUnits) {
    if (bytes != 0 && bytes % unit.bytes == 0) {
      return absl::StrCat(bytes / unit.bytes, std::string(unit.suffix));
    }
  }
  return absl::StrCat(bytes);
}

std::string FormatNumber(double value) {
  std::array<char, 32> text{};
  return {text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr};
}

bool IsAddress(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  const std::string_view host = text.substr(0, colon);
  const std::string_view port = text.substr(colon + 1);
  const std::optional<uint16_t> number = ParseNumber<uint16_t>(port);
  if (!number.has_value()) return false;
  if (host.front() == '[') return host.size() > 2 && host.back() == ']';
  return host.find_first_of(":[]/ \t\n") == std::string_view::npos;
}

}  // namespace asymserve
