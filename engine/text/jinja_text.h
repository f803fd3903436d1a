#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

// Python's string operations on UTF-8: what a Jinja template expects of a str. Positions and counts
// are code points, white space is str.isspace(). Every argument is valid UTF-8.

namespace asymserve::jinja {

/// The code point that begins at `offset`, which moves behind it.
char32_t NextCodePoint(std::string_view text, size_t& offset);
void AppendCodePoint(char32_t code_point, std::string& out);
int64_t CodePoints(std::string_view text);
/// The code points one by one.
std::vector<std::string_view> SplitCharacters(std::string_view text);

bool IsSpace(char32_t code_point);
std::string_view StripLeft(std::string_view text);
std::string_view StripRight(std::string_view text);
/// Remove any of the code points in `characters`.
std::string_view StripLeft(std::string_view text, std::string_view characters);
std::string_view StripRight(std::string_view text, std::string_view characters);

/// The first `needle` at or after `from`, or npos, in time linear in the text.
size_t Find(std::string_view text, std::string_view needle, size_t from = 0);

/// str.split and str.rsplit; `most` splits at most, negative: no limit. `separator` is not empty.
std::vector<std::string_view> Split(std::string_view text, std::string_view separator,
                                    int64_t most);
std::vector<std::string_view> SplitFromRight(std::string_view text, std::string_view separator,
                                             int64_t most);
/// str.split() at runs of white space, without empty pieces.
std::vector<std::string_view> SplitAtSpace(std::string_view text, int64_t most);

/// str.replace; ResourceExhausted instead of a result of more than `limit_bytes`.
absl::StatusOr<std::string> Replace(std::string_view text, std::string_view from,
                                    std::string_view to, int64_t most, size_t limit_bytes);

/// Case mappings of ASCII text; InvalidArgument for anything else, whose mapping needs tables.
enum class CaseMapping : uint8_t {
  kUpper,
  kLower,
  kCapitalize,   // str.capitalize
  kMethodTitle,  // str.title: a letter after anything but a letter
  kFilterTitle,  // the filter of Jinja: a letter after a space, hyphen or opening bracket
};
absl::StatusOr<std::string> MapCase(std::string_view text, CaseMapping mapping);

}  // namespace asymserve::jinja
