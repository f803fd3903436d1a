#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace asymserve {

/// GPT-2's alphabet, in which byte-level BPE vocabularies are written: a printable character for
/// every byte. The bytes 0x21-0x7e, 0xa1-0xac and 0xae-0xff stand for the code point of the same
/// number, the other 68 in order for U+0100 to U+0143.

/// Appends the bytes that `written` stands for; false, with part of them appended, when a character
/// is outside the alphabet or `written` is not valid UTF-8.
bool AppendAlphabetBytes(std::string_view written, std::string& bytes);

/// `bytes` in the alphabet.
std::string WriteInAlphabet(std::string_view bytes);

}  // namespace asymserve
