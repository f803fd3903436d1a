#include "engine/text/jinja_text.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "engine/text/jinja_format.h"
#include "engine/text/utf8.h"

namespace asymserve::jinja {
namespace {

using Views = std::vector<std::string_view>;

TEST(JinjaTextTest, EveryCodePointSurvivesEncodingAndDecoding) {
  for (char32_t code_point = 0; code_point <= 0x10FFFF; ++code_point) {
    if (code_point >= 0xD800 && code_point < 0xE000) continue;
    std::string text;
    AppendCodePoint(code_point, text);
    ASSERT_EQ(ValidUtf8Prefix(text), text.size()) << static_cast<uint32_t>(code_point);
    size_t offset = 0;
    ASSERT_EQ(NextCodePoint(text, offset), code_point);
    ASSERT_EQ(offset, text.size());
  }
}

TEST(JinjaTextTest, KnowsPythonsWhiteSpace) {
  // [c for c in range(0x110000) if chr(c).isspace()] in Python 3.11 has 29 members.
  int count = 0;
  for (char32_t c = 0; c < 0x110000; ++c) count += IsSpace(c) ? 1 : 0;
  EXPECT_EQ(count, 29);
  EXPECT_TRUE(IsSpace(0x3000));
  EXPECT_FALSE(IsSpace(0x200B));
}

TEST(JinjaTextTest, StripsWholeCodePointsOnly) {
  EXPECT_EQ(StripLeft("\u3000\u00a0x\u3000"), "x\u3000");
  EXPECT_EQ(StripRight("\u3000x\u3000\u2003"), "\u3000x");
  EXPECT_EQ(StripRight("\u3000"), "");
  // U+00E9 is C3 A9, U+00C9 is C3 89: a shared lead byte is not a shared character.
  EXPECT_EQ(StripLeft("\u00e9", "\u00c9"), "\u00e9");
  EXPECT_EQ(StripRight("a\u00e9\u00e9", "\u00e9"), "a");
}

TEST(JinjaTextTest, SplitsFromTheSideThatIsAskedFor) {
  EXPECT_EQ(Split("aaa", "aa", -1), (Views{"", "a"}));
  EXPECT_EQ(SplitFromRight("aaa", "aa", -1), (Views{"a", ""}));
  EXPECT_EQ(Split("a,b,c", ",", 1), (Views{"a", "b,c"}));
  EXPECT_EQ(SplitFromRight("a,b,c", ",", 1), (Views{"a,b", "c"}));
  EXPECT_EQ(Split("", ",", -1), (Views{""}));
  EXPECT_EQ(SplitAtSpace(" a \u3000 b ", -1), (Views{"a", "b"}));
  EXPECT_EQ(SplitAtSpace(" a  b c ", 1), (Views{"a", "b c "}));
  EXPECT_EQ(SplitAtSpace("  ", -1), (Views{}));
}

TEST(JinjaTextTest, ReplacesAndStopsAtTheLimit) {
  EXPECT_EQ(*Replace("\u00e9x", "", "-", -1, 100), "-\u00e9-x-");
  EXPECT_EQ(*Replace("aaa", "a", "b", 2, 100), "bba");
  EXPECT_EQ(*Replace("abc", "b", "", -1, 100), "ac");
  EXPECT_FALSE(Replace(std::string(100, 'a'), "a", std::string(100, 'b'), -1, 5000).ok());
}

TEST(JinjaTextTest, RefusesToChangeTheCaseOfNonAsciiText) {
  EXPECT_EQ(*MapCase("aB-c", CaseMapping::kUpper), "AB-C");
  EXPECT_EQ(*MapCase("it's a-b", CaseMapping::kMethodTitle), "It'S A-B");
  EXPECT_EQ(*MapCase("it's a-b", CaseMapping::kFilterTitle), "It's A-B");
  EXPECT_FALSE(MapCase("\u00e9", CaseMapping::kUpper).ok());
}

TEST(JinjaTextTest, PrintsFloatsAsPythonDoes) {
  const std::pair<double, const char*> kCases[] = {
      {0.0, "0.0"},
      {-0.0, "-0.0"},
      {1.0, "1.0"},
      {0.1, "0.1"},
      {1e15, "1000000000000000.0"},
      {1e16, "1e+16"},
      {0.0001, "0.0001"},
      {0.00001, "1e-05"},
      {1.7976931348623157e308, "1.7976931348623157e+308"},
      {5e-324, "5e-324"},
      {1.0 / 3, "0.3333333333333333"},
      {123456.789, "123456.789"},
      {9007199254740993.0, "9007199254740992.0"},
      {1.5e300, "1.5e+300"}};
  for (const auto& [value, text] : kCases) EXPECT_EQ(FloatText(value), text);
}

}  // namespace
}  // namespace asymserve::jinja
