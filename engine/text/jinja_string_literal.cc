#include "engine/text/jinja_string_literal.h"

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "engine/base/status.h"
#include "engine/text/jinja_text.h"

namespace asymserve::jinja {
namespace {

constexpr std::array<std::pair<char, char>, 10> kSimpleEscapes = {{{'n', '\n'},
                                                                   {'t', '\t'},
                                                                   {'r', '\r'},
                                                                   {'\\', '\\'},
                                                                   {'\'', '\''},
                                                                   {'"', '"'},
                                                                   {'a', '\a'},
                                                                   {'b', '\b'},
                                                                   {'f', '\f'},
                                                                   {'v', '\v'}}};

// Digits of an escape that begins at `digits`, at most `most` of them in `base`; appends the code
// point and returns the count of digits read.
absl::StatusOr<size_t> DecodeNumber(std::string_view digits, size_t most, int base,
                                    std::string& out) {
  digits = digits.substr(0, most);
  uint32_t code_point = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), code_point, base);
  const auto read = static_cast<size_t>(end - digits.data());
  if (error != std::errc() || (base == 16 && read < most)) {
    return absl::InvalidArgumentError("a string has a malformed numeric escape");
  }
  if (code_point > 0x10FFFF || (code_point >= 0xD800 && code_point < 0xE000)) {
    return absl::InvalidArgumentError("a string has an escape that is no character");
  }
  AppendCodePoint(code_point, out);
  return read;
}

// The escape behind a backslash; returns its length in bytes.
absl::StatusOr<size_t> DecodeEscape(std::string_view escape, std::string& out) {
  const char c = escape[0];
  for (const auto& [name, value] : kSimpleEscapes) {
    if (c != name) continue;
    out += value;
    return 1;
  }
  if (c == '\n') return 1;  // a continued line
  if (c >= '0' && c <= '7') return DecodeNumber(escape, 3, 8, out);
  if (c == 'N') return absl::InvalidArgumentError("the string escape \\N is not supported");
  const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits == 0) {
    out += '\\';
    return 0;
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const size_t read, DecodeNumber(escape.substr(1), digits, 16, out));
  return read + 1;
}

}  // namespace

absl::StatusOr<std::string> DecodeStringLiteral(std::string_view body) {
  std::string out;
  out.reserve(body.size());
  for (size_t i = 0; i < body.size();) {
    if (body[i] != '\\' || i + 1 == body.size()) {
      out += body[i++];
      continue;
    }
    ASYMSERVE_ASSIGN_OR_RETURN(const size_t length, DecodeEscape(body.substr(i + 1), out));
    i += 1 + length;
  }
  return out;
}

}  // namespace asymserve::jinja
