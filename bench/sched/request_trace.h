#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace asymserve {

/// One request of a trace.
struct TraceRow {
  int64_t at_us = 0;  // since the first request
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;

  friend bool operator==(const TraceRow&, const TraceRow&) = default;
};

/// A trace, in either form, which its first line tells:
///
///   TIMESTAMP,ContextTokens,GeneratedTokens             2023-11-16 18:15:46.6805900,374,44
///   milliseconds,prompt_tokens,generated_tokens         4314,396,109
///
/// the former as the Azure public dataset has it, the latter as bench/sched/traces keeps it. Times
/// never decrease, numbers of tokens are 1 to 16,777,216, lines end with LF or CR LF.
/// InvalidArgument names the line: "NAME:17: ...".
absl::StatusOr<std::vector<TraceRow>> ParseTrace(std::string_view text, const std::string& name);

/// Errors name the path.
absl::StatusOr<std::vector<TraceRow>> ReadTrace(const std::string& path);

}  // namespace asymserve
