#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// value.name(arguments) for Python's str and dict.
absl::StatusOr<Value> CallMethod(const Value& value, std::string_view name,
                                 const Arguments& arguments, Budget& budget);

/// str.strip, lstrip and rstrip; an absent or None `characters` means white space.
absl::StatusOr<Value> StripText(std::string_view text, const Value& characters, bool left,
                                bool right, Budget& budget);
/// str.replace; a negative `most` means all.
absl::StatusOr<Value> ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                                  int64_t most, Budget& budget);
/// The items of dict.items(), as tuples.
absl::StatusOr<std::vector<Value>> DictItems(const Dict& dict, Budget& budget);

}  // namespace asymserve::jinja
