#pragma once

#include <string_view>

// The names of the subset: what a template may call. Everything else is refused when the template
// is parsed.

namespace asymserve::jinja {

bool IsKnownFilter(std::string_view name);
bool IsKnownTest(std::string_view name);
bool IsKnownMethod(std::string_view name);

/// Tests that take exactly one argument; the others take none.
bool TestTakesArgument(std::string_view name);

/// Python attributes of str, list and dict: `x.name` without a call would be a bound method there.
bool IsStringAttribute(std::string_view name);
bool IsListAttribute(std::string_view name);
bool IsDictAttribute(std::string_view name);

}  // namespace asymserve::jinja
