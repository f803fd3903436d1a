#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

#include "engine/text/jinja_budget.h"
#include "engine/text/jinja_value.h"

namespace asymserve::jinja {

/// Appends str(value), as {{ value }} prints it. InvalidArgument for what has no text in the
/// subset: functions, namespaces, views, iterators, and non-ASCII strings inside containers.
absl::Status AppendText(const Value& value, Budget& budget, std::string& out);

struct JsonStyle {
  int64_t indent = -1;  // spaces for each level; negative: one line
};
/// Appends json.dumps(value, ensure_ascii=False, indent=...), which is Hugging Face's tojson.
absl::Status AppendJson(const Value& value, const JsonStyle& style, Budget& budget,
                        std::string& out);

/// repr() of a finite float.
std::string FloatText(double value);

}  // namespace asymserve::jinja
