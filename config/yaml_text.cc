#include "config/yaml_text.h"

#include <array>
#include <cstdint>
#include <cstdio>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"

#include "config/option_tree.h"
#include "config/scalar.h"

namespace asymserve {
namespace {

/// In double quotes, so that no reader takes it for a number, a truth value or null.
std::string QuotedYaml(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      std::array<char, 8> escape{};
      std::snprintf(escape.data(), escape.size(), "\\x%02X", byte);
      out += escape.data();
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string ValueText(Config& config, const Option& option) {
  return std::visit(
      [&](auto member) -> std::string {
        const auto& value = member(config);
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
        if constexpr (std::is_same_v<T, int32_t>) return absl::StrCat(value);
        if constexpr (std::is_same_v<T, int64_t>) return FormatSize(value);
        if constexpr (std::is_same_v<T, double>) return FormatNumber(value);
        if constexpr (std::is_same_v<T, std::string>) return QuotedYaml(value);
      },
      option.member);
}

void Append(Config& config, const OptionNode& section, size_t depth, std::string& out) {
  const std::string indent(2 * depth, ' ');
  for (const OptionNode& child : section.children) {
    if (depth == 0 && !out.empty()) out += '\n';
    absl::StrAppend(&out, indent, std::string(child.name), ":");
    if (child.option != nullptr) {
      absl::StrAppend(&out, " ", ValueText(config, *child.option), "\n");
      continue;
    }
    out += '\n';
    Append(config, child, depth + 1, out);
  }
}

}  // namespace

std::string WriteYaml(const Config& config) {
  Config copy = config;  // members are reached through a mutable reference
  std::string text;
  Append(copy, OptionTree(), 0, text);
  return text;
}

}  // namespace asymserve
