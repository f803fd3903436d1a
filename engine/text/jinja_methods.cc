#include "engine/text/jinja_methods.h"

#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_text.h"

namespace asymserve::jinja {
namespace {

absl::Status NoMethod(const Value& value, std::string_view name) {
  if (value.IsUndefined()) return absl::InvalidArgumentError(value.UndefinedMessage());
  return absl::InvalidArgumentError(absl::StrCat("a value of type ", std::string(value.TypeName()),
                                                 " has no method '", std::string(name), "'"));
}

absl::StatusOr<Value> MapCaseOf(std::string_view text, std::string_view name,
                                const Arguments& arguments, Budget& budget) {
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text.size()));
  CaseMapping mapping = CaseMapping::kUpper;
  if (name == "lower") mapping = CaseMapping::kLower;
  if (name == "title") mapping = CaseMapping::kMethodTitle;
  if (name == "capitalize") mapping = CaseMapping::kCapitalize;
  ASYMSERVE_ASSIGN_OR_RETURN(std::string mapped, MapCase(text, mapping));
  return Value::MakeString(std::move(mapped));
}

absl::StatusOr<Value> SplitText(std::string_view text, std::string_view name,
                                const Arguments& arguments, Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind(name, arguments, {"sep", "maxsplit"}, 0));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t most, bound.Integer(1, -1));
  // The pieces' views, before MakeTextList counts the pieces themselves.
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(text.size() * sizeof(std::string_view) / 2));
  const bool from_right = name == "rsplit";
  if (!bound.Has(0) || bound.At(0).IsNone()) {
    if (from_right && most >= 0) {
      return absl::InvalidArgumentError("rsplit() at white space with maxsplit is not supported");
    }
    return MakeTextList(SplitAtSpace(text, most), budget);
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view separator, bound.Text(0));
  if (separator.empty()) return absl::InvalidArgumentError("split() with an empty separator");
  if (!from_right) return MakeTextList(Split(text, separator, most), budget);
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(text.size() * separator.size()));
  return MakeTextList(SplitFromRight(text, separator, most), budget);
}

absl::StatusOr<Value> HasAffix(std::string_view text, std::string_view name,
                               const Arguments& arguments, Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"affix"}, 1));
  const auto matches = [&](std::string_view affix) {
    return name == "startswith" ? text.starts_with(affix) : text.ends_with(affix);
  };
  const Sequence* affixes = bound.At(0).AsSequence();
  if (affixes == nullptr || affixes->kind != SequenceKind::kTuple) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view affix, bound.Text(0));
    return Value::MakeBool(matches(affix));
  }
  for (const Value& affix : affixes->items) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Work(affix.Extent()));
    if (affix.String() == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(name), "() takes a str or a tuple of str"));
    }
    if (matches(*affix.String())) return Value::MakeBool(true);
  }
  return Value::MakeBool(false);
}

absl::StatusOr<Value> RemoveAffix(std::string_view text, std::string_view name,
                                  const Arguments& arguments, Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"affix"}, 1));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view affix, bound.Text(0));
  if (name == "removeprefix" && text.starts_with(affix)) text.remove_prefix(affix.size());
  if (name == "removesuffix" && text.ends_with(affix)) text.remove_suffix(affix.size());
  return MakeText(text, budget);
}

absl::StatusOr<Value> FindOrCount(std::string_view text, std::string_view name,
                                  const Arguments& arguments) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound, BoundArguments::Bind(name, arguments, {"sub"}, 1));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view part, bound.Text(0));
  size_t found = Find(text, part);
  if (name == "find") {
    if (found == std::string_view::npos) return Value::MakeInt(-1);
    return Value::MakeInt(CodePoints(text.substr(0, found)));
  }
  if (part.empty()) return Value::MakeInt(CodePoints(text) + 1);
  int64_t count = 0;
  for (; found != std::string_view::npos; found = Find(text, part, found + part.size())) ++count;
  return Value::MakeInt(count);
}

absl::StatusOr<Value> JoinWith(std::string_view separator, const Arguments& arguments,
                               Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind("join", arguments, {"iterable"}, 1));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> items, Items(bound.At(0), budget));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string* item = items[i].String();
    if (item == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("join() of an item of type ", std::string(items[i].TypeName())));
    }
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(separator.size() + item->size()));
    if (i > 0) out += separator;
    out += *item;
  }
  return Value::MakeString(std::move(out));
}

absl::StatusOr<Value> CallStringMethod(const Value& value, std::string_view name,
                                       const Arguments& arguments, Budget& budget) {
  const std::string& text = *value.String();
  if (name == "strip" || name == "lstrip" || name == "rstrip") {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                               BoundArguments::Bind(name, arguments, {"chars"}, 0));
    return StripText(text, bound.At(0), name != "rstrip", name != "lstrip", budget);
  }
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize") {
    return MapCaseOf(text, name, arguments, budget);
  }
  if (name == "split" || name == "rsplit") return SplitText(text, name, arguments, budget);
  if (name == "startswith" || name == "endswith") return HasAffix(text, name, arguments, budget);
  if (name == "removeprefix" || name == "removesuffix") {
    return RemoveAffix(text, name, arguments, budget);
  }
  if (name == "find" || name == "count") return FindOrCount(text, name, arguments);
  if (name == "join") return JoinWith(text, arguments, budget);
  if (name == "replace") {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                               BoundArguments::Bind(name, arguments, {"old", "new", "count"}, 2));
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view from, bound.Text(0));
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view to, bound.Text(1));
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t most, bound.Integer(2, -1));
    return ReplaceText(text, from, to, most, budget);
  }
  return NoMethod(value, name);
}

absl::StatusOr<Value> CallDictMethod(const Value& value, std::string_view name,
                                     const Arguments& arguments, Budget& budget) {
  const Dict& dict = *value.AsDict();
  if (name == "get") {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                               BoundArguments::Bind(name, arguments, {"key", "default"}, 1));
    const std::string* key = bound.At(0).String();
    const Value* item = key == nullptr ? nullptr : dict.Find(*key);
    if (item != nullptr) return *item;
    return bound.Has(1) ? bound.At(1) : Value::MakeNone();
  }
  ASYMSERVE_RETURN_IF_ERROR(BoundArguments::Bind(name, arguments, {}, 0).status());
  std::vector<Value> items;
  if (name == "items") {
    ASYMSERVE_ASSIGN_OR_RETURN(items, DictItems(dict, budget));
  } else if (name == "keys") {
    ASYMSERVE_ASSIGN_OR_RETURN(items, Items(value, budget));
  } else if (name == "values") {
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(dict.entries.size() * sizeof(Value)));
    for (const auto& entry : dict.entries) items.push_back(entry.second);
  } else {
    return NoMethod(value, name);
  }
  return Value::MakeSequence(SequenceKind::kView, std::move(items));
}

}  // namespace

absl::StatusOr<Value> StripText(std::string_view text, const Value& characters, bool left,
                                bool right, Budget& budget) {
  if (characters.IsUndefined() || characters.IsNone()) {
    if (left) text = StripLeft(text);
    if (right) text = StripRight(text);
    return MakeText(text, budget);
  }
  const std::string* set = characters.String();
  if (set == nullptr) return absl::InvalidArgumentError("strip() takes a str of characters");
  ASYMSERVE_RETURN_IF_ERROR(budget.Work(text.size() * set->size()));
  if (left) text = StripLeft(text, *set);
  if (right) text = StripRight(text, *set);
  return MakeText(text, budget);
}

absl::StatusOr<Value> ReplaceText(std::string_view text, std::string_view from, std::string_view to,
                                  int64_t most, Budget& budget) {
  absl::StatusOr<std::string> replaced = Replace(text, from, to, most, budget.bytes_left());
  if (!replaced.ok()) return budget.Allocate(budget.bytes_left() + 1);
  ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(replaced->size() + kItemBytes));
  return Value::MakeString(*std::move(replaced));
}

absl::StatusOr<std::vector<Value>> DictItems(const Dict& dict, Budget& budget) {
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Allocate(kItemBytes + sizeof(Sequence)));
    ASYMSERVE_ASSIGN_OR_RETURN(Value name, MakeText(key, budget));
    ASYMSERVE_ASSIGN_OR_RETURN(Value pair,
                               Value::MakeSequence(SequenceKind::kTuple, {std::move(name), value}));
    items.push_back(std::move(pair));
  }
  return items;
}

absl::StatusOr<Value> CallMethod(const Value& value, std::string_view name,
                                 const Arguments& arguments, Budget& budget) {
  if (value.String() != nullptr) return CallStringMethod(value, name, arguments, budget);
  if (value.AsDict() != nullptr) return CallDictMethod(value, name, arguments, budget);
  return NoMethod(value, name);
}

}  // namespace asymserve::jinja
