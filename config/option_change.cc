#include "config/option_change.h"

#include <type_traits>

#include "absl/strings/str_cat.h"

#include "config/scalar.h"

namespace asymserve {
namespace {

template <typename T>
std::string ValueText(const T& value) {
  if constexpr (std::is_same_v<T, bool>) return value ? "true" : "false";
  if constexpr (std::is_same_v<T, int32_t>) return absl::StrCat(value);
  if constexpr (std::is_same_v<T, int64_t>) return FormatSize(value);
  if constexpr (std::is_same_v<T, double>) return FormatNumber(value);
  if constexpr (std::is_same_v<T, std::string>) return value.empty() ? "\"\"" : Printable(value);
}

}  // namespace

std::vector<OptionChange> Changes(const Config& from, const Config& to) {
  Config a = from, b = to;  // members are reached through a mutable reference
  std::vector<OptionChange> changes;
  for (const Option& option : Options()) {
    std::visit(
        [&](auto member) {
          const auto &before = member(a), &after = member(b);
          if (before != after) changes.push_back({&option, ValueText(before), ValueText(after)});
        },
        option.member);
  }
  return changes;
}

std::string ToString(const OptionChange& change) {
  return absl::StrCat(std::string(change.option->key), ": ", change.from, " -> ", change.to);
}

void CopyValue(const Option& option, const Config& from, Config& to) {
  Config source = from;
  std::visit([&](auto member) { member(to) = member(source); }, option.member);
}

}  // namespace asymserve
