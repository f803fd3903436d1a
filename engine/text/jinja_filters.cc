#include "engine/text/jinja_filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_text.h"

namespace asymserve::jinja {
namespace {

using Handler = absl::StatusOr<Value> (*)(std::string_view name, const Value& value,
                                          const Arguments& arguments, Budget& budget);

absl::StatusOr<std::string> Text(const Value& value, Budget& budget) {
  std::string text;
  ASYMSERVE_RETURN_IF_ERROR(AppendText(value, budget, text));
  return text;
}

absl::StatusOr<Value> Case(std::string_view name, const Value& value, const Arguments& arguments,
                           Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, Text(value, budget));
  CaseMapping mapping = CaseMapping::kUpper;
  if (name == "lower") mapping = CaseMapping::kLower;
  if (name == "title") mapping = CaseMapping::kFilterTitle;
  if (name == "capitalize") mapping = CaseMapping::kCapitalize;
  ASYMSERVE_ASSIGN_OR_RETURN(std::string mapped, MapCase(text, mapping));
  return Value::MakeString(std::move(mapped));
}

absl::StatusOr<Value> Trim(std::string_view name, const Value& value, const Arguments& arguments,
                           Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"chars"}, 0));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, Text(value, budget));
  return StripText(text, bound.At(0), true, true, budget);
}

absl::StatusOr<Value> ReplaceFilter(std::string_view name, const Value& value,
                                    const Arguments& arguments, Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind(name, arguments, {"old", "new", "count"}, 2));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, Text(value, budget));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view from, bound.Text(0));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view to, bound.Text(1));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t most, bound.Integer(2, -1));
  return ReplaceText(text, from, to, most, budget);
}

absl::StatusOr<Value> LengthFilter(std::string_view name, const Value& value,
                                   const Arguments& arguments, Budget& /*budget*/) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t length, Length(value));
  return Value::MakeInt(length);
}

absl::StatusOr<Value> Join(std::string_view name, const Value& value, const Arguments& arguments,
                           Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind(name, arguments, {"d", "attribute"}, 0));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> items, Items(value, budget));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string separator, Text(bound.At(0), budget));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Work());
    if (i > 0) {
      ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(separator.size()));
      out += separator;
    }
    if (!bound.Has(1)) {
      ASYMSERVE_RETURN_IF_ERROR(AppendText(items[i], budget, out));
      continue;
    }
    ASYMSERVE_ASSIGN_OR_RETURN(const Value part, Subscript(items[i], bound.At(1), budget));
    ASYMSERVE_RETURN_IF_ERROR(AppendText(part, budget, out));
  }
  return Value::MakeString(std::move(out));
}

absl::StatusOr<Value> Default(std::string_view name, const Value& value, const Arguments& arguments,
                              Budget& /*budget*/) {
  ASYMSERVE_ASSIGN_OR_RETURN(
      const auto bound, BoundArguments::Bind(name, arguments, {"default_value", "boolean"}, 0));
  const bool use_default = value.IsUndefined() || (bound.At(1).IsTrue() && !value.IsTrue());
  if (!use_default) return value;
  return bound.Has(0) ? bound.At(0) : Value::MakeString(std::string());
}

absl::StatusOr<Value> FirstOrLast(std::string_view name, const Value& value,
                                  const Arguments& arguments, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  const Sequence* sequence = value.AsSequence();
  if (name == "last" && sequence != nullptr && sequence->kind == SequenceKind::kIterator) {
    return absl::InvalidArgumentError("last of an iterator; make it a list first");
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> items, Items(value, budget));
  if (items.empty()) return Value::MakeUndefined(name);
  return name == "first" ? items.front() : items.back();
}

absl::StatusOr<Value> List(std::string_view name, const Value& value, const Arguments& arguments,
                           Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Value> items, Items(value, budget));
  return Value::MakeSequence(SequenceKind::kList, std::move(items));
}

absl::StatusOr<Value> ItemsFilter(std::string_view name, const Value& value,
                                  const Arguments& arguments, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  std::vector<Value> items;
  if (const Dict* dict = value.AsDict()) {
    ASYMSERVE_ASSIGN_OR_RETURN(items, DictItems(*dict, budget));
  } else if (!value.IsUndefined()) {
    return absl::InvalidArgumentError(
        absl::StrCat("items of a value of type ", std::string(value.TypeName())));
  }
  return Value::MakeSequence(SequenceKind::kIterator, std::move(items));
}

absl::StatusOr<Value> Reverse(std::string_view name, const Value& value, const Arguments& arguments,
                              Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  if (value.String() != nullptr) {
    return Slice(value, Value::MakeNone(), Value::MakeNone(), Value::MakeInt(-1), budget);
  }
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Value> items, Items(value, budget));
  std::reverse(items.begin(), items.end());
  return Value::MakeSequence(SequenceKind::kIterator, std::move(items));
}

absl::StatusOr<Value> ToString(std::string_view name, const Value& value,
                               const Arguments& arguments, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  if (value.String() != nullptr) return value;
  ASYMSERVE_ASSIGN_OR_RETURN(std::string text, Text(value, budget));
  return Value::MakeString(std::move(text));
}

absl::StatusOr<Value> Truncate(double value) {
  if (!(std::fabs(value) < 0x1p63)) {
    return absl::InvalidArgumentError("a number does not fit in 64 bits");
  }
  return Value::MakeInt(static_cast<int64_t>(value));
}

// int(text), else int(float(text)), else nothing.
absl::StatusOr<Value> ParseInt(std::string_view text, const Value& otherwise) {
  std::string_view digits = StripRight(StripLeft(text));
  const auto is_plain = [](char c) { return static_cast<unsigned char>(c) < 0x80 && c != '_'; };
  if (!std::all_of(digits.begin(), digits.end(), is_plain)) {
    return absl::InvalidArgumentError("int of text with '_' or non-ASCII digits is not supported");
  }
  if (digits.starts_with('+') && !digits.substr(1).starts_with('-')) digits.remove_prefix(1);
  const char* const end = digits.data() + digits.size();
  int64_t number = 0;
  const auto integer = std::from_chars(digits.data(), end, number);
  if (integer.ec == std::errc() && integer.ptr == end) return Value::MakeInt(number);
  double real = 0;
  const auto floating = std::from_chars(digits.data(), end, real);
  if (floating.ec != std::errc() || floating.ptr != end || !std::isfinite(real)) return otherwise;
  return Truncate(real);
}

absl::StatusOr<Value> ToInt(std::string_view name, const Value& value, const Arguments& arguments,
                            Budget& /*budget*/) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind(name, arguments, {"default"}, 0));
  int64_t storage = 0;
  if (const int64_t* number = AsInteger(value, storage)) return Value::MakeInt(*number);
  if (const double* number = value.If<double>()) return Truncate(*number);
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  const Value otherwise = bound.Has(0) ? bound.At(0) : Value::MakeInt(0);
  if (const std::string* text = value.String()) return ParseInt(*text, otherwise);
  return otherwise;
}

absl::StatusOr<Value> ToJson(std::string_view name, const Value& value, const Arguments& arguments,
                             Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(
      const auto bound,
      BoundArguments::Bind(name, arguments, {"ensure_ascii", "indent", "separators", "sort_keys"},
                           0));
  if (bound.At(0).IsTrue() || bound.At(3).IsTrue() ||
      !(bound.At(2).IsUndefined() || bound.At(2).IsNone())) {
    return absl::InvalidArgumentError(
        "tojson with ensure_ascii, separators or sort_keys is not supported");
  }
  constexpr int64_t kMaxIndent = 32;
  JsonStyle style;
  if (!bound.At(1).IsNone()) {
    ASYMSERVE_ASSIGN_OR_RETURN(style.indent, bound.Integer(1, -1));
    if (bound.Has(1) && (style.indent < 0 || style.indent > kMaxIndent)) {
      return absl::InvalidArgumentError(absl::StrCat("tojson with an indent of ", style.indent,
                                                     " is not supported: 0 to ", kMaxIndent));
    }
  }
  std::string json;
  ASYMSERVE_RETURN_IF_ERROR(AppendJson(value, style, budget, json));
  return Value::MakeString(std::move(json));
}

constexpr std::pair<std::string_view, Handler> kHandlers[] = {{"capitalize", Case},
                                                              {"count", LengthFilter},
                                                              {"d", Default},
                                                              {"default", Default},
                                                              {"first", FirstOrLast},
                                                              {"int", ToInt},
                                                              {"items", ItemsFilter},
                                                              {"join", Join},
                                                              {"last", FirstOrLast},
                                                              {"length", LengthFilter},
                                                              {"list", List},
                                                              {"lower", Case},
                                                              {"map", ApplySelection},
                                                              {"reject", ApplySelection},
                                                              {"rejectattr", ApplySelection},
                                                              {"replace", ReplaceFilter},
                                                              {"reverse", Reverse},
                                                              {"select", ApplySelection},
                                                              {"selectattr", ApplySelection},
                                                              {"string", ToString},
                                                              {"title", Case},
                                                              {"tojson", ToJson},
                                                              {"trim", Trim},
                                                              {"upper", Case}};

}  // namespace

absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& value,
                                  const Arguments& arguments, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(value.Extent()));
  for (const auto& [known, handler] : kHandlers) {
    if (known == name) return handler(name, value, arguments, budget);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the filter '", std::string(name), "' is not supported"));
}

}  // namespace asymserve::jinja
