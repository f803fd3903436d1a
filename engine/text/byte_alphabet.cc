#include "engine/text/byte_alphabet.h"

#include <array>
#include <cstdint>

namespace asymserve {
namespace {

constexpr int kCodePoints = 0x144;

struct Alphabet {
  std::array<uint16_t, 256> code_point{};
  std::array<int16_t, kCodePoints> byte{};  // -1: not a letter of the alphabet
};

constexpr Alphabet MakeAlphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte) byte = -1;
  uint16_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const uint16_t code_point = printable ? static_cast<uint16_t>(byte) : next++;
    alphabet.code_point[byte] = code_point;
    alphabet.byte[code_point] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = MakeAlphabet();

}  // namespace

bool AppendAlphabetBytes(std::string_view written, std::string& bytes) {
  for (size_t at = 0; at < written.size(); ++at) {
    auto code_point = static_cast<uint32_t>(static_cast<uint8_t>(written[at]));
    if (code_point >= 0x80) {  // the alphabet has no character of more than two bytes
      if (code_point < 0xC2 || code_point > 0xC5 || at + 1 == written.size()) return false;
      const auto second = static_cast<uint8_t>(written[++at]);
      if ((second & 0xC0) != 0x80) return false;
      code_point = ((code_point & 0x1F) << 6) | (second & 0x3F);
    }
    if (code_point >= kCodePoints || kAlphabet.byte[code_point] < 0) return false;
    bytes.push_back(static_cast<char>(kAlphabet.byte[code_point]));
  }
  return true;
}

std::string WriteInAlphabet(std::string_view bytes) {
  std::string written;
  for (const char byte : bytes) {
    const uint16_t code_point = kAlphabet.code_point[static_cast<uint8_t>(byte)];
    if (code_point < 0x80) {
      written.push_back(static_cast<char>(code_point));
    } else {
      written.push_back(static_cast<char>(0xC0 | (code_point >> 6)));
      written.push_back(static_cast<char>(0x80 | (code_point & 0x3F)));
    }
  }
  return written;
}

}  // namespace asymserve
