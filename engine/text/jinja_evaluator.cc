// The expressions of Interpreter.

#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_predicates.h"

namespace asymserve::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  absl::Status status = budget_.Work();
  if (status.ok()) status = budget_.Enter();
  if (!status.ok()) return At(expression.line, status);
  auto value = EvaluateNode(expression);
  budget_.Leave();
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateNode(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kLiteral:
      return expression.literal;
    case ExpressionKind::kName:
      ASYMSERVE_RETURN_IF_ERROR(At(expression.line, CountSearch(VisibleVariables())));
      return Lookup(expression.name);
    case ExpressionKind::kList:
    case ExpressionKind::kTuple: {
      ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateOperands(expression, 0));
      const auto kind =
          expression.kind == ExpressionKind::kList ? SequenceKind::kList : SequenceKind::kTuple;
      return At(expression.line, Value::MakeSequence(kind, std::move(items)));
    }
    case ExpressionKind::kDict:
      return EvaluateDict(expression);
    case ExpressionKind::kUnary:
      return EvaluateUnary(expression);
    case ExpressionKind::kBinary:
      return EvaluateBinary(expression);
    case ExpressionKind::kConcat:
      return EvaluateConcat(expression);
    case ExpressionKind::kCompare:
      return EvaluateCompare(expression);
    case ExpressionKind::kConditional:
      return EvaluateConditional(expression);
    case ExpressionKind::kAttribute:
    case ExpressionKind::kSubscript:
    case ExpressionKind::kSlice:
      return EvaluateAccess(expression);
    case ExpressionKind::kTest:
      return EvaluateTest(expression);
    case ExpressionKind::kCall:
    case ExpressionKind::kMethod:
    case ExpressionKind::kFilter:
      return EvaluateCall(expression);
  }
  return At(expression.line, absl::InternalError("an expression of no kind"));
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateOperands(const Expression& expression,
                                                                 size_t first) {
  std::vector<Value> values;
  const size_t count = expression.operands.size() - first;
  if (absl::Status status = budget_.Allocate(count * sizeof(Value)); !status.ok()) {
    return At(expression.line, status);
  }
  values.reserve(count);
  size_t extent = 0;
  for (size_t i = first; i < expression.operands.size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i]));
    extent += value.Extent();
    values.push_back(std::move(value));
  }
  if (absl::Status status = budget_.Work(extent); !status.ok()) {
    return At(expression.line, status);
  }
  return values;
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const Expression& expression,
                                                         size_t first) {
  Arguments arguments;
  ASYMSERVE_ASSIGN_OR_RETURN(arguments.positional, EvaluateOperands(expression, first));
  for (const auto& [name, operand] : expression.keywords) {
    ASYMSERVE_ASSIGN_OR_RETURN(Value value, Evaluate(*operand));
    arguments.keywords.emplace_back(name, std::move(value));
  }
  return arguments;
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateOperands(expression, 0));
  Dict dict;
  for (size_t i = 0; i + 1 < values.size(); i += 2) {
    const std::string* key = values[i].String();
    if (key == nullptr) {
      return At(expression.line, absl::InvalidArgumentError(absl::StrCat(
                                     "a dict key of type ", std::string(values[i].TypeName()),
                                     " is not supported")));
    }
    absl::Status status = budget_.Work(dict.entries.size() * 64);  // the search for the key
    if (status.ok()) status = budget_.Allocate(key->size() + kItemBytes);
    if (!status.ok()) return At(expression.line, status);
    dict.Set(*key, values[i + 1]);
  }
  return At(expression.line, Value::MakeDict(std::move(dict)));
}

absl::StatusOr<Value> Interpreter::EvaluateUnary(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
  if (expression.name == "not") return Value::MakeBool(!value.IsTrue());
  auto negated = At(expression.line, Negate(value));
  if (expression.name == "-" || !negated.ok()) return negated;
  return At(expression.line, Negate(*negated));
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const Expression& expression) {
  if (expression.name == "and" || expression.name == "or") {
    ASYMSERVE_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
    if (left.IsTrue() == (expression.name == "or")) return left;
    return Evaluate(*expression.operands[1]);
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateOperands(expression, 0));
  return At(expression.line, Arithmetic(expression.name, values[0], values[1], budget_));
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateOperands(expression, 0));
  std::string text;
  for (const Value& value : values) {
    if (absl::Status status = AppendText(value, budget_, text); !status.ok()) {
      return At(expression.line, status);
    }
  }
  return Value::MakeString(std::move(text));
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1]));
    const auto holds = Compare(expression.comparisons[i], left, right, budget_);
    if (!holds.ok()) return At(expression.line, holds.status());
    if (!*holds) return Value::MakeBool(false);
    left = std::move(right);
  }
  return Value::MakeBool(true);
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Value condition, Evaluate(*expression.operands[1]));
  if (condition.IsTrue()) return Evaluate(*expression.operands[0]);
  if (expression.operands.size() == 3) return Evaluate(*expression.operands[2]);
  return Value::MakeUndefined("an if without else");
}

absl::StatusOr<Value> Interpreter::EvaluateAccess(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateOperands(expression, 0));
  if (expression.kind == ExpressionKind::kAttribute) {
    return At(expression.line, Attribute(values[0], expression.name));
  }
  if (expression.kind == ExpressionKind::kSubscript) {
    return At(expression.line, Subscript(values[0], values[1], budget_));
  }
  return At(expression.line, Slice(values[0], values[1], values[2], values[3], budget_));
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expression& expression) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateOperands(expression, 0));
  const Value argument = values.size() > 1 ? values[1] : Value();
  const auto holds = ApplyTest(expression.name, values[0], argument, budget_);
  if (!holds.ok()) return At(expression.line, holds.status());
  return Value::MakeBool(*holds != expression.negated);
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expression& expression) {
  if (expression.kind != ExpressionKind::kCall) {
    ASYMSERVE_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
    ASYMSERVE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, 1));
    if (absl::Status status = budget_.Work(value.Extent()); !status.ok()) {
      return At(expression.line, status);
    }
    return At(expression.line, expression.kind == ExpressionKind::kFilter
                                   ? ApplyFilter(expression.name, value, arguments, budget_)
                                   : CallMethod(value, expression.name, arguments, budget_));
  }
  ASYMSERVE_RETURN_IF_ERROR(At(expression.line, CountSearch(VisibleVariables())));
  const Value callee = Lookup(expression.name);
  if (callee.IsUndefined()) {
    return At(expression.line, absl::InvalidArgumentError(callee.UndefinedMessage()));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const Arguments arguments, EvaluateArguments(expression, 0));
  if (const auto* macro = callee.If<const MacroStatement*>()) {
    return CallMacro(**macro, arguments, expression.line);
  }
  if (const auto* function = callee.If<Builtin>()) {
    return CallBuiltin(*function, arguments, expression.line);
  }
  return At(expression.line, absl::InvalidArgumentError(absl::StrCat(
                                 "'", expression.name, "' is a value of type ",
                                 std::string(callee.TypeName()), " and cannot be called")));
}

}  // namespace asymserve::jinja
