#include "engine/text/jinja_predicates.h"

#include <string>

#include "engine/base/status.h"
#include "engine/text/jinja_operators.h"

namespace asymserve::jinja {
namespace {

bool IsIterable(const Value& value) {
  return value.IsUndefined() || value.String() != nullptr || value.AsSequence() != nullptr ||
         value.AsDict() != nullptr || value.If<Value::LoopPtr>() != nullptr;
}

bool IsNumber(const Value& value) {
  return value.If<int64_t>() != nullptr || value.If<double>() != nullptr ||
         value.If<bool>() != nullptr;
}

// Has a length and items by position or key, in Python's terms.
bool IsSequence(const Value& value) {
  const Sequence* sequence = value.AsSequence();
  if (sequence != nullptr) {
    return sequence->kind == SequenceKind::kList || sequence->kind == SequenceKind::kTuple;
  }
  return value.IsUndefined() || value.String() != nullptr || value.AsDict() != nullptr;
}

bool IsBool(const Value& value, bool wanted) {
  const bool* flag = value.If<bool>();
  return flag != nullptr && *flag == wanted;
}

absl::StatusOr<bool> IsMultiple(const Value& value, const Value& divisor, int64_t remainder,
                                Budget& budget) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Value rest, Arithmetic("%", value, divisor, budget));
  return Equal(rest, Value::MakeInt(remainder), budget);
}

}  // namespace

absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const Value& argument,
                               Budget& budget) {
  if (name == "defined") return !value.IsUndefined();
  if (name == "undefined") return value.IsUndefined();
  if (name == "none") return value.IsNone();
  if (name == "string") return value.String() != nullptr;
  if (name == "mapping") return value.AsDict() != nullptr;
  if (name == "iterable") return IsIterable(value);
  if (name == "sequence") return IsSequence(value);
  if (name == "number") return IsNumber(value);
  if (name == "integer") return value.If<int64_t>() != nullptr;
  if (name == "float") return value.If<double>() != nullptr;
  if (name == "boolean") return value.If<bool>() != nullptr;
  if (name == "true") return IsBool(value, true);
  if (name == "false") return IsBool(value, false);
  if (name == "odd") return IsMultiple(value, Value::MakeInt(2), 1, budget);
  if (name == "even") return IsMultiple(value, Value::MakeInt(2), 0, budget);
  if (name == "divisibleby") return IsMultiple(value, argument, 0, budget);
  if (name == "eq" || name == "equalto") return Equal(value, argument, budget);
  if (name == "ne") return Compare(Comparison::kNotEqual, value, argument, budget);
  if (name == "in") return Compare(Comparison::kIn, value, argument, budget);
  return absl::InvalidArgumentError(
      absl::StrCat("the test '", std::string(name), "' is not supported"));
}

}  // namespace asymserve::jinja
