#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace asymserve {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

/// What stands at the front of some bytes.
struct Utf8Unit {
  enum class Kind : uint8_t {
    kCharacter,   // a whole character
    kInvalid,     // a maximal subpart of an ill-formed sequence (Unicode 15, section 3.9)
    kIncomplete,  // all of the bytes, which more bytes can make a character
  };
  Kind kind;
  uint8_t length;  // bytes, 1 to 4
};

/// `bytes` is not empty.
Utf8Unit ReadUtf8(std::string_view bytes);

/// Bytes of the longest prefix of `text` that is valid UTF-8.
size_t ValidUtf8Prefix(std::string_view text);

/// Decodes a stream: appends to `out` the text of `pending` and `bytes` that is certain, with
/// U+FFFD for every ill-formed maximal subpart, and leaves an incomplete character (at most 3
/// bytes) in `pending`.
void AppendUtf8(std::string_view bytes, std::string& pending, std::string& out);

}  // namespace asymserve
