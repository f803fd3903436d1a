#include "config/schema.h"

#include <cstdint>
#include <map>
#include <string_view>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "config/option_tree.h"
#include "config/reference.h"
#include "config/scalar.h"
#include "engine/base/json_text.h"

namespace asymserve {
namespace {

// As ParseSize, IsAddress and ParseTenants, in the regular expressions of ECMA-262.
constexpr std::string_view kSizePattern = "^[0-9]+(KiB|MiB|GiB|TiB)?$";
constexpr std::string_view kAddressPattern =
    "(\\[.+\\]|[^:\\[\\]/ \\t\\n]+):"
    "0*(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[0-9]{1,4})";
constexpr std::string_view kTenantPattern =
    "(?!other=)[!-+.-<>-~\\-]{1,64}=0*(10000|[1-9][0-9]{0,3})";

std::string Pattern(Option::Format format) {
  const std::string address(kAddressPattern), tenant(kTenantPattern);
  switch (format) {
    case Option::Format::kFree:
      return "";
    case Option::Format::kAddress:
      return absl::StrCat("^", address, "$");
    case Option::Format::kOptionalAddress:
      return absl::StrCat("^(", address, ")?$");
    case Option::Format::kTenants:
      return absl::StrCat("^(", tenant, "(,", tenant, "){0,63})?$");
  }
  return "";
}

std::string Range(const Option& option) {
  return absl::StrCat(", \"minimum\": ", static_cast<int64_t>(option.min),
                      ", \"maximum\": ", static_cast<int64_t>(option.max));
}

std::string SizeDefault(int64_t bytes) {
  const std::string text = FormatSize(bytes);
  return text == absl::StrCat(bytes) ? text : JsonText(text);
}

std::string TextSchema(const Option& option, const std::string& value) {
  const std::string end = absl::StrCat(", \"default\": ", JsonText(value));
  if (!option.choices.empty()) {
    const std::string choices = absl::StrJoin(
        option.choices, ", ",
        [](std::string* out, std::string_view choice) { out->append(JsonText(choice)); });
    return absl::StrCat("\"type\": \"string\", \"enum\": [", choices, "]", end);
  }
  const std::string pattern = Pattern(option.format);
  if (!pattern.empty()) {
    return absl::StrCat("\"type\": \"string\", \"pattern\": ", JsonText(pattern), end);
  }
  // Plain text is text to the server even where it looks like something else.
  return absl::StrCat("\"type\": [\"string\", \"number\", \"boolean\"]", end);
}

std::string OptionSchema(const Option& option) {
  return std::visit(
      [&](auto member) -> std::string {
        Config defaults;
        const auto& value = member(defaults);
        using T = std::remove_cvref_t<decltype(value)>;
        if constexpr (std::is_same_v<T, bool>) {
          return absl::StrCat("\"type\": \"boolean\", \"default\": ", value ? "true" : "false");
        } else if constexpr (std::is_same_v<T, int32_t>) {
          return absl::StrCat("\"type\": \"integer\"", Range(option), ", \"default\": ", value);
        } else if constexpr (std::is_same_v<T, int64_t>) {
          return absl::StrCat("\"type\": [\"integer\", \"string\"]", Range(option),
                              ", \"pattern\": ", JsonText(kSizePattern),
                              ", \"default\": ", SizeDefault(value));
        } else if constexpr (std::is_same_v<T, double>) {
          return absl::StrCat("\"type\": \"number\"", Range(option), ", \"default\": ", value);
        } else {
          return TextSchema(option, value);
        }
      },
      option.member);
}

using Comments = std::map<std::string, std::string>;

std::string Description(const Comments& comments, const std::string& key) {
  const auto found = comments.find(key);
  if (found == comments.end()) return "";
  return absl::StrCat("\"description\": ", JsonText(found->second), ", ");
}

/// The members of a section's schema, without its braces. A section may be empty.
std::string SectionSchema(const Comments& comments, const OptionNode& section,
                          const std::string& key, size_t depth) {
  const std::string indent(4 * depth + 4, ' ');
  std::string text =
      "\"type\": [\"object\", \"null\"], \"additionalProperties\": false, \"properties\": {\n";
  for (const OptionNode& child : section.children) {
    const std::string name(child.name);
    const std::string child_key = key.empty() ? name : absl::StrCat(key, ".", name);
    absl::StrAppend(&text, indent, JsonText(name), ": {", Description(comments, child_key),
                    child.option != nullptr ? OptionSchema(*child.option)
                                            : SectionSchema(comments, child, child_key, depth + 1),
                    &child == &section.children.back() ? "}\n" : "},\n");
  }
  return absl::StrCat(text, std::string(4 * depth, ' '), "}");
}

}  // namespace

std::string ConfigSchema() {
  return absl::StrCat(
      "{\"$schema\": \"https://json-schema.org/draft/2020-12/schema\", "
      "\"title\": \"AsymServe configuration\",\n",
      SectionSchema(ReferenceComments(), OptionTree(), "", 0), "}\n");
}

}  // namespace asymserve
