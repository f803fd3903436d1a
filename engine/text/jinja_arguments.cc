#include "engine/text/jinja_arguments.h"

#include <algorithm>

#include "engine/base/status.h"
#include "engine/text/jinja_operators.h"

namespace asymserve::jinja {

absl::StatusOr<BoundArguments> BoundArguments::Bind(
    std::string_view callee, const Arguments& arguments,
    std::initializer_list<std::string_view> parameters, size_t required) {
  BoundArguments bound;
  bound.callee_ = callee;
  bound.parameters_.assign(parameters.begin(), parameters.end());
  bound.values_.resize(parameters.size());
  if (arguments.positional.size() > parameters.size()) {
    return absl::InvalidArgumentError(absl::StrCat(bound.callee_, "() takes at most ",
                                                   parameters.size(), " arguments, got ",
                                                   arguments.positional.size()));
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    bound.values_[i] = arguments.positional[i];
  }
  for (const auto& [name, value] : arguments.keywords) {
    const auto found = std::find(bound.parameters_.begin(), bound.parameters_.end(), name);
    const auto i = static_cast<size_t>(found - bound.parameters_.begin());
    if (found == bound.parameters_.end() || bound.values_[i]) {
      return absl::InvalidArgumentError(
          absl::StrCat("the argument '", name, "' of ", bound.callee_, "() is ",
                       found == bound.parameters_.end() ? "not supported" : "given twice"));
    }
    bound.values_[i] = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound.values_[i]) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(bound.callee_, "() lacks its argument '", bound.parameters_[i], "'"));
  }
  return bound;
}

const Value& BoundArguments::At(size_t i) const {
  static const Value undefined;
  return values_[i] ? *values_[i] : undefined;
}

absl::Status BoundArguments::WrongType(size_t i, std::string_view wanted) const {
  return absl::InvalidArgumentError(
      absl::StrCat("the argument '", parameters_[i], "' of ", callee_, "() is a value of type ",
                   std::string(At(i).TypeName()), ", not ", std::string(wanted)));
}

absl::StatusOr<std::string_view> BoundArguments::Text(size_t i) const {
  const std::string* text = At(i).String();
  if (text == nullptr) return WrongType(i, "str");
  return std::string_view(*text);
}

absl::StatusOr<int64_t> BoundArguments::Integer(size_t i, int64_t otherwise) const {
  if (!Has(i)) return otherwise;
  int64_t storage = 0;
  const int64_t* number = AsInteger(At(i), storage);
  if (number == nullptr) return WrongType(i, "int");
  return *number;
}

}  // namespace asymserve::jinja
