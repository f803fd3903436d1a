#pragma once

#include <gmock/gmock.h>

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace asymserve::testing {

inline const absl::Status& StatusOf(const absl::Status& status) {
  return status;
}
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status_or) {
  return status_or.status();
}

/// A Status or StatusOr that is OK.
MATCHER(IsOk, negation ? "is an error" : "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

/// A Status or StatusOr with this code whose message contains `part`.
MATCHER_P2(FailsWith, code, part, "fails with a message that contains " + std::string(part)) {
  *result_listener << StatusOf(arg).ToString();
  const std::string message(StatusOf(arg).message());
  return StatusOf(arg).code() == code && message.find(part) != std::string::npos;
}

}  // namespace asymserve::testing
