#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// The evaluated arguments of a call.
struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

/// Arguments assigned to parameters, in the parameters' order.
class BoundArguments {
 public:
  /// InvalidArgument names `callee` when there are too many or too few, or an unknown keyword.
  static absl::StatusOr<BoundArguments> Bind(std::string_view callee, const Arguments& arguments,
                                             std::initializer_list<std::string_view> parameters,
                                             size_t required);

  bool Has(size_t i) const { return values_[i].has_value(); }
  /// The argument, or undefined when it is not given.
  const Value& At(size_t i) const;
  /// InvalidArgument unless it is a str.
  absl::StatusOr<std::string_view> Text(size_t i) const;
  absl::StatusOr<int64_t> Integer(size_t i, int64_t otherwise) const;

 private:
  absl::Status WrongType(size_t i, std::string_view wanted) const;

  std::string callee_;
  std::vector<std::string> parameters_;
  std::vector<std::optional<Value>> values_;
};

}  // namespace asymserve::jinja
