#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

// Python's operators on values. InvalidArgument for operand types that Python refuses, for integers
// beyond 64 bits, and for the few combinations outside the subset.

namespace asymserve::jinja {

/// "+", "-", "*", "/", "//" or "%".
absl::StatusOr<Value> Arithmetic(std::string_view op, const Value& left, const Value& right,
                                 Budget& budget);
absl::StatusOr<Value> Negate(const Value& value);

absl::StatusOr<bool> Equal(const Value& left, const Value& right, Budget& budget);
absl::StatusOr<bool> Compare(Comparison comparison, const Value& left, const Value& right,
                             Budget& budget);

/// The items of an iterable, in order: characters of a str, keys of a dict. An iterator is used up.
absl::StatusOr<std::vector<Value>> Items(const Value& value, Budget& budget);
/// len(value).
absl::StatusOr<int64_t> Length(const Value& value);

/// value.name, where no call follows: an attribute, else an item, else undefined.
absl::StatusOr<Value> Attribute(const Value& value, std::string_view name);
/// value[index]; undefined where there is no such item.
absl::StatusOr<Value> Subscript(const Value& value, const Value& index, Budget& budget);
absl::StatusOr<Value> Slice(const Value& value, const Value& begin, const Value& end,
                            const Value& step, Budget& budget);

/// The value as an integer operand: int or bool.
const int64_t* AsInteger(const Value& value, int64_t& storage);

/// A new str, counted by the budget.
absl::StatusOr<Value> MakeText(std::string_view text, Budget& budget);
/// A list of strs.
absl::StatusOr<Value> MakeTextList(const std::vector<std::string_view>& texts, Budget& budget);
/// Bytes that the budget counts for an item of a list.
inline constexpr size_t kItemBytes = sizeof(Value) + 48;

}  // namespace asymserve::jinja
