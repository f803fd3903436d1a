#pragma once

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace asymserve {

/// Whether `text`, valid UTF-8, is in normalization form C for certain, found without tables: every
/// character below U+0300 is.
bool IsSurelyNfc(std::string_view text);

/// `text`, valid UTF-8, in normalization form C (Unicode annex 15). O(n log n) also for long runs
/// of combining marks.
absl::StatusOr<std::string> NormalizeNfc(std::string_view text);

}  // namespace asymserve
