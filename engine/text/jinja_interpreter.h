#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// Renders one template once. One thread.
class Interpreter {
 public:
  /// `now` is what strftime_now() formats; without it that function is undefined.
  Interpreter(const Limits& limits, std::optional<std::tm> now);

  /// Makes a variable known to the template; `name` outlives the interpreter.
  void Define(std::string_view name, Value value);

  /// `program` outlives the interpreter. InvalidArgument is the message of raise_exception(), or
  /// "line N: " and what failed, or a limit that was reached.
  absl::StatusOr<std::string> Render(const Block& program);

 private:
  enum class Flow : uint8_t { kNext, kBreak, kContinue };
  using Scope = std::vector<std::pair<std::string_view, Value>>;
  class ScopeGuard;

  // Statements: jinja_interpreter.cc.
  absl::StatusOr<Flow> Execute(const Block& block);
  absl::StatusOr<Flow> ExecuteOne(const Statement& statement);
  absl::StatusOr<Flow> Run(const IfStatement& statement);
  absl::StatusOr<Flow> Run(const ForStatement& statement, int line);
  absl::Status Run(const SetStatement& statement, int line);
  absl::StatusOr<std::vector<Value>> LoopItems(const ForStatement& statement, int line);
  /// The text that a block prints, in a scope of its own.
  absl::StatusOr<std::string> Capture(const Block& block);
  absl::Status Assign(const Target& target, Value value, int line);
  void SetVariable(std::string_view name, Value value);
  Value Lookup(std::string_view name) const;
  /// Counts the work of looking for a name among so many, where it is not little.
  absl::Status CountSearch(size_t names) {
    return names < 64 ? absl::OkStatus() : budget_.Work(names);
  }
  size_t VisibleVariables() const;

  // Expressions: jinja_evaluator.cc.
  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateNode(const Expression& expression);
  absl::StatusOr<std::vector<Value>> EvaluateOperands(const Expression& expression, size_t first);
  absl::StatusOr<Arguments> EvaluateArguments(const Expression& expression, size_t first);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression);
  absl::StatusOr<Value> EvaluateUnary(const Expression& expression);
  absl::StatusOr<Value> EvaluateBinary(const Expression& expression);
  absl::StatusOr<Value> EvaluateConcat(const Expression& expression);
  absl::StatusOr<Value> EvaluateCompare(const Expression& expression);
  absl::StatusOr<Value> EvaluateConditional(const Expression& expression);
  absl::StatusOr<Value> EvaluateAccess(const Expression& expression);
  absl::StatusOr<Value> EvaluateTest(const Expression& expression);
  absl::StatusOr<Value> EvaluateCall(const Expression& expression);

  // Functions: jinja_functions.cc.
  absl::StatusOr<Value> CallBuiltin(Builtin function, const Arguments& arguments, int line);
  absl::StatusOr<Value> CallMacro(const MacroStatement& macro, const Arguments& arguments,
                                  int line);
  absl::StatusOr<Value> MakeNamespace(const Arguments& arguments);
  absl::StatusOr<Value> MakeRange(const Arguments& arguments);
  absl::StatusOr<Value> FormatNow(const Arguments& arguments);

  /// Puts "line N: " before an error.
  static absl::Status At(int line, const absl::Status& status);
  static absl::StatusOr<Value> At(int line, absl::StatusOr<Value> value);

  Budget budget_;
  const std::optional<std::tm> now_;
  // [0] what the caller defined, [1] the template's top level, then one for each open block. Inside
  // a macro only those from frame_ on and the first two are visible.
  std::vector<Scope> scopes_;
  size_t frame_ = 2;
  std::vector<std::unique_ptr<Namespace>> namespaces_;
  std::string out_;
};

/// Opens a scope for as long as it lives.
class Interpreter::ScopeGuard {
 public:
  explicit ScopeGuard(Interpreter& owner) : owner_(owner), size_(owner.scopes_.size()) {
    owner_.scopes_.emplace_back();
  }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;
  ~ScopeGuard() { owner_.scopes_.resize(size_); }

 private:
  Interpreter& owner_;
  const size_t size_;
};

}  // namespace asymserve::jinja
