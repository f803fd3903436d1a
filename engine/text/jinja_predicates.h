#pragma once

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// `value is name(argument)`. `name` is one of IsKnownTest; `argument` is given when
/// TestTakesArgument says so and ignored otherwise.
absl::StatusOr<bool> ApplyTest(std::string_view name, const Value& value, const Value& argument,
                               Budget& budget);

}  // namespace asymserve::jinja
