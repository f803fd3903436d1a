#include "engine/text/jinja_interpreter.h"

#include <algorithm>

#include "engine/base/status.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_operators.h"

namespace asymserve::jinja {
namespace {

Value* FindIn(std::vector<std::pair<std::string_view, Value>>& scope, std::string_view name) {
  const auto found = std::find_if(scope.begin(), scope.end(),
                                  [&](const auto& entry) { return entry.first == name; });
  return found == scope.end() ? nullptr : &found->second;
}

const Value* FindIn(const std::vector<std::pair<std::string_view, Value>>& scope,
                    std::string_view name) {
  for (const auto& [known, value] : scope) {
    if (known == name) return &value;
  }
  return nullptr;
}

}  // namespace

Interpreter::Interpreter(const Limits& limits, std::optional<std::tm> now)
    : budget_(limits), now_(now), scopes_(2) {
  Define("raise_exception", Value::MakeBuiltin(Builtin::kRaiseException));
  Define("range", Value::MakeBuiltin(Builtin::kRange));
  Define("namespace", Value::MakeBuiltin(Builtin::kNamespace));
  if (now_) Define("strftime_now", Value::MakeBuiltin(Builtin::kStrftimeNow));
}

void Interpreter::Define(std::string_view name, Value value) {
  scopes_[0].emplace_back(name, std::move(value));
}

absl::StatusOr<std::string> Interpreter::Render(const Block& program) {
  ASYMSERVE_RETURN_IF_ERROR(Execute(program).status());
  return std::move(out_);
}

absl::Status Interpreter::At(int line, const absl::Status& status) {
  return Annotate(status, absl::StrCat("line ", line));
}

absl::StatusOr<Value> Interpreter::At(int line, absl::StatusOr<Value> value) {
  if (value.ok()) return value;
  return At(line, value.status());
}

Value Interpreter::Lookup(std::string_view name) const {
  for (size_t i = scopes_.size(); i > frame_; --i) {
    if (const Value* value = FindIn(scopes_[i - 1], name)) return *value;
  }
  for (const size_t i : {1, 0}) {
    if (const Value* value = FindIn(scopes_[i], name)) return *value;
  }
  return Value::MakeUndefined(name);
}

size_t Interpreter::VisibleVariables() const {
  size_t count = scopes_[0].size() + scopes_[1].size();
  for (size_t i = std::max<size_t>(frame_, 2); i < scopes_.size(); ++i) count += scopes_[i].size();
  return count;
}

void Interpreter::SetVariable(std::string_view name, Value value) {
  Scope& scope = scopes_.back();
  if (Value* known = FindIn(scope, name)) {
    *known = std::move(value);
  } else {
    scope.emplace_back(name, std::move(value));
  }
}

absl::Status Interpreter::Assign(const Target& target, Value value, int line) {
  ASYMSERVE_RETURN_IF_ERROR(At(line, CountSearch(scopes_.back().size())));
  if (!target.attribute.empty()) {
    const Value holder = Lookup(target.names[0]);
    const auto* name_space = holder.If<Namespace*>();
    if (name_space == nullptr) {
      return At(line, absl::InvalidArgumentError(absl::StrCat("cannot set '", target.attribute,
                                                              "' of '", target.names[0],
                                                              "', which is not a namespace")));
    }
    (*name_space)->attributes.Set(target.attribute, std::move(value));
    return absl::OkStatus();
  }
  if (!target.is_tuple) {
    SetVariable(target.names[0], std::move(value));
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<Value>> items =
      value.IsUndefined() ? absl::InvalidArgumentError(value.UndefinedMessage())
                          : Items(value, budget_);
  if (!items.ok()) return At(line, items.status());
  if (items->size() != target.names.size()) {
    return At(line, absl::InvalidArgumentError(absl::StrCat("cannot unpack ", items->size(),
                                                            " values into ", target.names.size(),
                                                            " variables")));
  }
  for (size_t i = 0; i < items->size(); ++i) {
    SetVariable(target.names[i], std::move((*items)[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Block& block) {
  for (const Statement& statement : block) {
    if (absl::Status status = budget_.Work(); !status.ok()) return At(statement.line, status);
    ASYMSERVE_ASSIGN_OR_RETURN(const Flow flow, ExecuteOne(statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteOne(const Statement& statement) {
  if (const auto* text = std::get_if<TextStatement>(&statement.node)) {
    if (absl::Status status = budget_.Allocate(text->text.size()); !status.ok()) {
      return At(statement.line, status);
    }
    out_ += text->text;
  } else if (const auto* print = std::get_if<PrintStatement>(&statement.node)) {
    ASYMSERVE_ASSIGN_OR_RETURN(const Value value, Evaluate(*print->value));
    if (absl::Status status = AppendText(value, budget_, out_); !status.ok()) {
      return At(statement.line, status);
    }
  } else if (const auto* branch = std::get_if<IfStatement>(&statement.node)) {
    return Run(*branch);
  } else if (const auto* loop = std::get_if<ForStatement>(&statement.node)) {
    return Run(*loop, statement.line);
  } else if (const auto* assignment = std::get_if<SetStatement>(&statement.node)) {
    ASYMSERVE_RETURN_IF_ERROR(Run(*assignment, statement.line));
  } else if (const auto* macro = std::get_if<MacroStatement>(&statement.node)) {
    SetVariable(macro->name, Value::MakeMacro(macro));
  } else if (const auto* scope = std::get_if<ScopeStatement>(&statement.node)) {
    const ScopeGuard guard(*this);
    ASYMSERVE_RETURN_IF_ERROR(Execute(scope->body).status());
  } else if (std::holds_alternative<BreakStatement>(statement.node)) {
    return Flow::kBreak;
  } else {
    return Flow::kContinue;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const IfStatement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    ASYMSERVE_ASSIGN_OR_RETURN(const Value value, Evaluate(*condition));
    if (value.IsTrue()) return Execute(body);
  }
  return Execute(statement.otherwise);
}

absl::StatusOr<std::vector<Value>> Interpreter::LoopItems(const ForStatement& statement, int line) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Value iterable, Evaluate(*statement.items));
  absl::StatusOr<std::vector<Value>> items = Items(iterable, budget_);
  if (!items.ok()) return At(line, items.status());
  if (statement.condition == nullptr) return items;
  std::vector<Value> kept;
  for (Value& item : *items) {
    const ScopeGuard guard(*this);
    ASYMSERVE_RETURN_IF_ERROR(Assign(statement.target, item, line));
    ASYMSERVE_ASSIGN_OR_RETURN(const Value keep, Evaluate(*statement.condition));
    if (keep.IsTrue()) kept.push_back(std::move(item));
  }
  return kept;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Run(const ForStatement& statement, int line) {
  const auto loop = std::make_shared<LoopState>();
  ASYMSERVE_ASSIGN_OR_RETURN(loop->items, LoopItems(statement, line));
  if (loop->items.empty()) {
    const ScopeGuard guard(*this);
    return Execute(statement.otherwise);
  }
  loop->depth = Value::DepthOf(loop->items) + 1;
  for (size_t i = 0; i < loop->items.size(); ++i) {
    const ScopeGuard guard(*this);
    loop->index = i;
    if (absl::Status status = budget_.Work(); !status.ok()) return At(line, status);
    SetVariable("loop", Value::MakeLoop(loop));
    ASYMSERVE_RETURN_IF_ERROR(Assign(statement.target, loop->items[i], line));
    ASYMSERVE_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

absl::Status Interpreter::Run(const SetStatement& statement, int line) {
  if (statement.value != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(Value value, Evaluate(*statement.value));
    return Assign(statement.target, std::move(value), line);
  }
  ASYMSERVE_ASSIGN_OR_RETURN(std::string text, Capture(statement.body));
  return Assign(statement.target, Value::MakeString(std::move(text)), line);
}

absl::StatusOr<std::string> Interpreter::Capture(const Block& block) {
  std::string outer = std::exchange(out_, std::string());
  const ScopeGuard guard(*this);
  const absl::Status status = Execute(block).status();
  std::swap(outer, out_);
  if (!status.ok()) return status;
  return outer;
}

}  // namespace asymserve::jinja
