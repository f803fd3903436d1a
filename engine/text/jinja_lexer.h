#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace asymserve::jinja {

enum class TokenKind : uint8_t {
  kData,           // text outside tags, white space control already applied
  kVariableBegin,  // {{
  kVariableEnd,
  kBlockBegin,  // {%
  kBlockEnd,
  kName,
  kString,    // the text is the value: quotes gone, escapes resolved
  kInteger,   // decimal digits
  kFloat,     // digits with a fraction or an exponent
  kOperator,  // an operator or a bracket
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;
  int line = 1;
};

/// Splits a template as Jinja 2 does with trim_blocks and lstrip_blocks set and
/// keep_trailing_newline not set. Comments are dropped. `source` is valid UTF-8. The result ends
/// with kEnd. InvalidArgument names the line and what is wrong or not supported.
absl::StatusOr<std::vector<Token>> Tokenize(std::string_view source);

}  // namespace asymserve::jinja
