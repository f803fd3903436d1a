#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "engine/text/jinja_arguments.h"
#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// `value | name(arguments)`. `name` is one of IsKnownFilter.
absl::StatusOr<Value> ApplyFilter(std::string_view name, const Value& value,
                                  const Arguments& arguments, Budget& budget);

/// map, select, reject, selectattr and rejectattr: filters over the items of a sequence.
absl::StatusOr<Value> ApplySelection(std::string_view name, const Value& value,
                                     const Arguments& arguments, Budget& budget);

}  // namespace asymserve::jinja
