#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace asymserve {

/// How long the requests of a trace are, in tokens.
struct TraceLengths {
  int64_t requests = 0;
  int64_t mean_prompt = 0, mean_output = 0;  // rounded
  int64_t p99_prompt = 0, p99_output = 0;    // each by itself
};

/// Reads a CSV of the form
///
///   TIMESTAMP,ContextTokens,GeneratedTokens
///   2023-11-16 18:17:03.9799600,4808,10
///
/// with lines ending in \n or \r\n: prompts of 1 to 2^24 tokens, outputs of 0 to 2^24.
/// InvalidArgument: "FILE:LINE: what is wrong".
absl::StatusOr<TraceLengths> ReadLengthTrace(const std::string& path);

/// The same from text; `file` is its name in messages.
absl::StatusOr<TraceLengths> ParseLengthTrace(std::string_view text, const std::string& file);

}  // namespace asymserve
