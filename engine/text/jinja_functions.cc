// The functions that a template of Interpreter may call.

#include <array>
#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/status.h"
#include "engine/text/jinja_format.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_operators.h"

namespace asymserve::jinja {

absl::StatusOr<Value> Interpreter::CallBuiltin(Builtin function, const Arguments& arguments,
                                               int line) {
  switch (function) {
    case Builtin::kRaiseException: {
      const auto bound = BoundArguments::Bind("raise_exception", arguments, {"message"}, 1);
      if (!bound.ok()) return At(line, bound.status());
      std::string message;
      absl::Status status = AppendText(bound->At(0), budget_, message);
      if (!status.ok()) return At(line, status);
      return absl::InvalidArgumentError(message);
    }
    case Builtin::kRange:
      return At(line, MakeRange(arguments));
    case Builtin::kNamespace:
      return At(line, MakeNamespace(arguments));
    case Builtin::kStrftimeNow:
      return At(line, FormatNow(arguments));
  }
  return At(line, absl::InternalError("a function of no kind"));
}

absl::StatusOr<Value> Interpreter::MakeNamespace(const Arguments& arguments) {
  ASYMSERVE_RETURN_IF_ERROR(budget_.Allocate(sizeof(Namespace) + kItemBytes));
  auto made = std::make_unique<Namespace>();
  if (arguments.positional.size() > 1 ||
      (arguments.positional.size() == 1 && arguments.positional[0].AsDict() == nullptr)) {
    return absl::InvalidArgumentError("namespace() takes keywords or one dict");
  }
  if (!arguments.positional.empty()) made->attributes = *arguments.positional[0].AsDict();
  for (const auto& [name, value] : arguments.keywords) made->attributes.Set(name, value);
  const size_t entries = made->attributes.entries.size();
  ASYMSERVE_RETURN_IF_ERROR(budget_.Allocate(entries * kItemBytes));
  ASYMSERVE_RETURN_IF_ERROR(budget_.Work(entries * entries));
  namespaces_.push_back(std::move(made));
  return Value::MakeNamespace(namespaces_.back().get());
}

absl::StatusOr<Value> Interpreter::MakeRange(const Arguments& arguments) {
  constexpr int64_t kMaxItems = 100'000;  // as Jinja's sandbox
  if (!arguments.keywords.empty()) {
    return absl::InvalidArgumentError("range() takes no keyword arguments");
  }
  ASYMSERVE_ASSIGN_OR_RETURN(
      const auto bound, BoundArguments::Bind("range", arguments, {"start", "stop", "step"}, 1));
  ASYMSERVE_ASSIGN_OR_RETURN(int64_t begin, bound.Integer(0, 0));
  ASYMSERVE_ASSIGN_OR_RETURN(int64_t end, bound.Integer(1, 0));
  ASYMSERVE_ASSIGN_OR_RETURN(const int64_t step, bound.Integer(2, 1));
  if (!bound.Has(1)) end = std::exchange(begin, 0);
  if (step == 0) return absl::InvalidArgumentError("range() with a step of zero");
  std::vector<Value> items;
  for (int64_t i = begin; step > 0 ? i < end : i > end;) {
    if (static_cast<int64_t>(items.size()) == kMaxItems) {
      return absl::InvalidArgumentError(absl::StrCat("range() of more than ", kMaxItems, " items"));
    }
    ASYMSERVE_RETURN_IF_ERROR(budget_.Allocate(sizeof(Value)));
    items.push_back(Value::MakeInt(i));
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::MakeSequence(SequenceKind::kView, std::move(items));
}

absl::StatusOr<Value> Interpreter::FormatNow(const Arguments& arguments) {
  ASYMSERVE_ASSIGN_OR_RETURN(const auto bound,
                             BoundArguments::Bind("strftime_now", arguments, {"format"}, 1));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view format, bound.Text(0));
  std::string out;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    const char conversion = i + 1 < format.size() ? format[++i] : '\0';
    if (conversion == '%') {
      out += '%';
      continue;
    }
    if (conversion == '\0' ||
        std::string_view("aAbBdHIjmMpSyY").find(conversion) == std::string_view::npos) {
      return absl::InvalidArgumentError(absl::StrCat("strftime_now('", std::string(format),
                                                     "') has a conversion that is not supported"));
    }
    const std::array<char, 3> one = {'%', conversion, '\0'};
    std::array<char, 64> text{};
    out.append(text.data(), std::strftime(text.data(), text.size(), one.data(), &*now_));
  }
  return MakeText(out, budget_);
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroStatement& macro,
                                             const Arguments& arguments, int line) {
  const size_t count = macro.parameters.size();
  if (arguments.positional.size() > count) {
    return At(line, absl::InvalidArgumentError(
                        absl::StrCat("the macro '", macro.name, "' takes at most ", count,
                                     " arguments, got ", arguments.positional.size())));
  }
  for (const auto& keyword : arguments.keywords) {
    size_t i = 0;
    while (i < count && macro.parameters[i] != keyword.first) ++i;
    if (i < count && i >= arguments.positional.size()) continue;
    return At(line,
              absl::InvalidArgumentError(absl::StrCat(
                  "the macro '", macro.name, "' takes no argument '", keyword.first, "' here")));
  }
  const size_t frame = std::exchange(frame_, scopes_.size());
  const auto call = [&]() -> absl::StatusOr<std::string> {
    const ScopeGuard guard(*this);
    for (size_t i = 0; i < count; ++i) {
      const std::string& parameter = macro.parameters[i];
      const size_t first_default = count - macro.defaults.size();
      Value value = Value::MakeUndefined(parameter);
      bool given = i < arguments.positional.size();
      if (given) value = arguments.positional[i];
      for (const auto& [name, argument] : arguments.keywords) {
        if (name != parameter) continue;
        value = argument;
        given = true;
      }
      if (!given && i >= first_default) {
        ASYMSERVE_ASSIGN_OR_RETURN(value, Evaluate(*macro.defaults[i - first_default]));
      }
      SetVariable(parameter, std::move(value));
    }
    return Capture(macro.body);
  };
  absl::StatusOr<std::string> text = call();
  frame_ = frame;
  if (!text.ok()) return text.status();
  return Value::MakeString(*std::move(text));
}

}  // namespace asymserve::jinja
