#include "engine/text/utf8.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

std::string Decoded(std::string_view bytes) {
  std::string pending;
  std::string text;
  AppendUtf8(bytes, pending, text);
  if (!pending.empty()) text += kReplacementCharacter;
  return text;
}

/// '?' for U+FFFD, to keep the table readable.
std::string Marked(std::string_view text) {
  std::string marked;
  while (!text.empty()) {
    const bool is_replacement = text.starts_with(kReplacementCharacter);
    marked.push_back(is_replacement ? '?' : text.front());
    text.remove_prefix(is_replacement ? kReplacementCharacter.size() : 1);
  }
  return marked;
}

// The examples of the Unicode standard, tables 3-8 to 3-11, and the limits of each range.
TEST(Utf8Test, ReplacesEachMaximalSubpartByOneCharacter) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", "????????A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", "????????A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", "?????A??B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", "????A"},
      {"a\xF1\x80\x80\xE1\x80\xC2"
       "b\x80"
       "c\x80\xBF"
       "d",
       "a???b?c??d"},
      {"\xF0\x9F\x98", "?"},
      {"\xF5\x80", "??"},
      {std::string("\0", 1), std::string("\0", 1)},
  };
  for (const auto& [bytes, expected] : cases) EXPECT_EQ(Marked(Decoded(bytes)), expected);
}

TEST(Utf8Test, AcceptsExactlyTheCodePointsThatAreNotSurrogates) {
  for (uint32_t code_point = 0x80; code_point <= 0x110010; ++code_point) {
    std::string bytes;
    const auto append = [&bytes](uint32_t byte) { bytes.push_back(static_cast<char>(byte)); };
    if (code_point < 0x800) {
      append(0xC0 | (code_point >> 6));
    } else if (code_point < 0x10000) {
      append(0xE0 | (code_point >> 12));
      append(0x80 | ((code_point >> 6) & 0x3F));
    } else {
      append(0xF0 | (code_point >> 18));
      append(0x80 | ((code_point >> 12) & 0x3F));
      append(0x80 | ((code_point >> 6) & 0x3F));
    }
    append(0x80 | (code_point & 0x3F));
    const bool is_scalar = code_point <= 0x10FFFF && (code_point < 0xD800 || code_point > 0xDFFF);
    ASSERT_EQ(ValidUtf8Prefix(bytes) == bytes.size(), is_scalar) << "U+" << std::hex << code_point;
  }
}

TEST(Utf8Test, ValidPrefixEndsAtTheFirstBrokenCharacter) {
  EXPECT_EQ(ValidUtf8Prefix(""), 0u);
  EXPECT_EQ(ValidUtf8Prefix("abcdefghijklmnop"), 16u);
  EXPECT_EQ(ValidUtf8Prefix("abcdefghi\xFFjklmnop"), 9u);
  EXPECT_EQ(ValidUtf8Prefix("h\xC3\xA9llo w\xC3"), 8u);
}

TEST(Utf8Test, AStreamCutAnywhereGivesTheTextOfTheWhole) {
  constexpr uint32_t kSeed = 20240817;
  std::mt19937 random(kSeed);
  const std::string bytes_of_interest =
      "aZ\x7F\x80\xBF\xC0\xC2\xDF\xE0\xA0\xED\x9F\xEF\xF0\x90\xF4\x8F\xF5\xFF";
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes;
    for (int i = 0; i < 12; ++i) bytes += bytes_of_interest[random() % bytes_of_interest.size()];
    std::string pending;
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = random() % 5;
      const size_t before = text.size();
      AppendUtf8(std::string_view(bytes).substr(at, length), pending, text);
      ASSERT_LE(pending.size(), 3u);
      ASSERT_EQ(ValidUtf8Prefix(text.substr(before)), text.size() - before);
      at += length;
    }
    if (!pending.empty()) text += kReplacementCharacter;
    ASSERT_EQ(text, Decoded(bytes)) << "seed " << kSeed << " round " << round;
  }
}

}  // namespace
}  // namespace asymserve
