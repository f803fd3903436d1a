#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_predicates.h"
#include "engine/text/jinja_text.h"
#include "engine/text/jinja_vocabulary.h"

namespace asymserve::jinja {
namespace {

// A path such as "function.name" into an item.
absl::StatusOr<Value> AtPath(Value value, std::string_view path, Budget& budget) {
  for (const std::string_view part : Split(path, ".", -1)) {
    if (part.empty() || (part[0] >= '0' && part[0] <= '9')) {
      return absl::InvalidArgumentError(
          absl::StrCat("the attribute path '", std::string(path), "' is not supported"));
    }
    ASYMSERVE_RETURN_IF_ERROR(budget.Work(value.Extent()));
    ASYMSERVE_ASSIGN_OR_RETURN(value, Subscript(value, Value::MakeString(part), budget));
  }
  return value;
}

absl::StatusOr<Value> Map(std::vector<Value> items, const Arguments& arguments, Budget& budget) {
  if (arguments.positional.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                               BoundArguments::Bind("map", arguments, {"attribute", "default"}, 1));
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view path, bound.Text(0));
    for (Value& item : items) {
      ASYMSERVE_ASSIGN_OR_RETURN(item, AtPath(item, path, budget));
      if (item.IsUndefined() && bound.Has(1)) item = bound.At(1);
    }
    return Value::MakeSequence(SequenceKind::kIterator, std::move(items));
  }
  const std::string* filter = arguments.positional[0].String();
  // A filter over filters over filters is a recursion whose depth the arguments would choose.
  if (filter == nullptr || !IsKnownFilter(*filter) || *filter == "map" ||
      filter->starts_with("select") || filter->starts_with("reject")) {
    return absl::InvalidArgumentError("map() with this filter is not supported");
  }
  Arguments rest = arguments;
  rest.positional.erase(rest.positional.begin());
  for (Value& item : items) {
    ASYMSERVE_ASSIGN_OR_RETURN(item, ApplyFilter(*filter, item, rest, budget));
  }
  return Value::MakeSequence(SequenceKind::kIterator, std::move(items));
}

absl::StatusOr<Value> Select(std::string_view name, std::vector<Value> items,
                             const Arguments& arguments, Budget& budget) {
  const bool by_attribute = name.ends_with("attr");
  const bool wanted = name.starts_with("select");
  const size_t first = by_attribute ? 1 : 0;  // index of the test's name
  const auto& given = arguments.positional;
  if (given.size() < first || !arguments.keywords.empty() ||
      (by_attribute && given[0].String() == nullptr)) {
    return absl::InvalidArgumentError(
        absl::StrCat(std::string(name), "() with these arguments is not supported"));
  }
  std::string test;
  if (given.size() > first) {
    const std::string* text = given[first].String();
    const size_t expected = text != nullptr && TestTakesArgument(*text) ? 1 : 0;
    if (text == nullptr || !IsKnownTest(*text) || given.size() != first + 1 + expected) {
      return absl::InvalidArgumentError(
          absl::StrCat(std::string(name), "() with this test is not supported"));
    }
    test = *text;
  }
  const Value argument = given.size() > first + 1 ? given[first + 1] : Value();
  std::vector<Value> kept;
  for (Value& item : items) {
    ASYMSERVE_RETURN_IF_ERROR(budget.Work());
    Value subject = item;
    if (by_attribute) {
      ASYMSERVE_ASSIGN_OR_RETURN(subject, AtPath(item, *given[0].String(), budget));
    }
    bool holds = subject.IsTrue();
    if (!test.empty()) {
      ASYMSERVE_ASSIGN_OR_RETURN(holds, ApplyTest(test, subject, argument, budget));
    }
    if (holds == wanted) kept.push_back(std::move(item));
  }
  return Value::MakeSequence(SequenceKind::kIterator, std::move(kept));
}

}  // namespace

absl::StatusOr<Value> ApplySelection(std::string_view name, const Value& value,
                                     const Arguments& arguments, Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Value> items, Items(value, budget));
  if (name == "map") return Map(std::move(items), arguments, budget);
  return Select(name, std::move(items), arguments, budget);
}

}  // namespace asymserve::jinja
