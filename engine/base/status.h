#pragma once

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

// Return early with the error of an absl::Status, or unwrap an absl::StatusOr.
#define ASYMSERVE_RETURN_IF_ERROR(expression)                               \
  do {                                                                      \
    if (absl::Status status_ = (expression); !status_.ok()) return status_; \
  } while (false)

#define ASYMSERVE_CONCAT_INNER(a, b) a##b
#define ASYMSERVE_CONCAT(a, b) ASYMSERVE_CONCAT_INNER(a, b)
#define ASYMSERVE_ASSIGN_OR_RETURN(left, expression) \
  ASYMSERVE_ASSIGN_OR_RETURN_INNER(ASYMSERVE_CONCAT(status_or_, __LINE__), left, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): `left` may be a declaration.
#define ASYMSERVE_ASSIGN_OR_RETURN_INNER(name, left, expression) \
  auto name = (expression);                                      \
  if (!name.ok()) return std::move(name).status();               \
  left = *std::move(name)
// NOLINTEND(bugprone-macro-parentheses)

namespace asymserve {

/// The same code with "prefix: " before the message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view prefix) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(std::string(prefix), ": ", std::string(status.message())));
}

}  // namespace asymserve
