#include "engine/text/jinja_lexer.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve::jinja {
namespace {

// Tokens as "kind:text", so that a failure shows them.
std::vector<std::string> Kinds(std::string_view source) {
  static constexpr const char* kNames[] = {"data", "{{",  "}}",    "{%", "%}", "name",
                                           "str",  "int", "float", "op", "end"};
  const auto tokens = Tokenize(source);
  if (!tokens.ok()) return {std::string(tokens.status().message())};
  std::vector<std::string> out;
  for (const Token& token : *tokens) {
    out.push_back(std::string(kNames[static_cast<size_t>(token.kind)]) + ":" + token.text);
  }
  return out;
}

using Strings = std::vector<std::string>;

TEST(JinjaLexerTest, SplitsTextAndTags) {
  EXPECT_EQ(Kinds("a{{ b }}c"), (Strings{"data:a", "{{:", "name:b", "}}:", "data:c", "end:"}));
  EXPECT_EQ(Kinds("{%if x1%}"), (Strings{"{%:", "name:if", "name:x1", "%}:", "end:"}));
  EXPECT_EQ(Kinds(""), (Strings{"end:"}));
  EXPECT_EQ(Kinds("{ { } } {"), (Strings{"data:{ { } } {", "end:"}));
}

TEST(JinjaLexerTest, TakesTheLongestOperatorAndBalancesBracesInsideATag) {
  EXPECT_EQ(Kinds("{{ a//b<=c }}"),
            (Strings{"{{:", "name:a", "op://", "name:b", "op:<=", "name:c", "}}:", "end:"}));
  EXPECT_EQ(Kinds("{{{}}}"), (Strings{"{{:", "op:{", "op:}", "}}:", "end:"}));
}

TEST(JinjaLexerTest, ReadsNumbersOfBothKinds) {
  EXPECT_EQ(
      Kinds("{{ 12 1_0 1.5 2e3 4E-1 }}"),
      (Strings{"{{:", "int:12", "int:10", "float:1.5", "float:2e3", "float:4E-1", "}}:", "end:"}));
  EXPECT_EQ(Kinds("{{ a.1.2 }}"),
            (Strings{"{{:", "name:a", "op:.", "int:1", "op:.", "int:2", "}}:", "end:"}));
}

TEST(JinjaLexerTest, ResolvesTheEscapesOfStrings) {
  EXPECT_EQ(Kinds(R"({{ 'a\n\'"\x41\u00e9\101\q' "}}" }})"),
            (Strings{"{{:", "str:a\n'\"A\u00e9A\\q", "str:}}", "}}:", "end:"}));
}

TEST(JinjaLexerTest, RemovesOneNewlineBehindABlockAndNoneBehindAVariable) {
  EXPECT_EQ(Kinds("{%a%}\n\nb"), (Strings{"{%:", "name:a", "%}:", "data:\nb", "end:"}));
  EXPECT_EQ(Kinds("{{a}}\nb"), (Strings{"{{:", "name:a", "}}:", "data:\nb", "end:"}));
  EXPECT_EQ(Kinds("{%a+%}\nb"), (Strings{"{%:", "name:a", "%}:", "data:\nb", "end:"}));
}

TEST(JinjaLexerTest, RemovesIndentationOnlyBeforeABlockThatBeginsItsLine) {
  EXPECT_EQ(Kinds("x\n  {%a%}"), (Strings{"data:x\n", "{%:", "name:a", "%}:", "end:"}));
  EXPECT_EQ(Kinds("x  {%a%}"), (Strings{"data:x  ", "{%:", "name:a", "%}:", "end:"}));
  EXPECT_EQ(Kinds("x\n  {%+a%}"), (Strings{"data:x\n  ", "{%:", "name:a", "%}:", "end:"}));
  EXPECT_EQ(Kinds("x\n  {{a}}"), (Strings{"data:x\n  ", "{{:", "name:a", "}}:", "end:"}));
}

TEST(JinjaLexerTest, RemovesAllSpaceAtADash) {
  EXPECT_EQ(Kinds("x \n {{- a -}} \n y"),
            (Strings{"data:x", "{{:", "name:a", "}}:", "data:y", "end:"}));
  EXPECT_EQ(Kinds("x {#- a -#} y"), (Strings{"data:x", "data:y", "end:"}));
}

TEST(JinjaLexerTest, NormalizesNewlinesAndDropsTheLastOne) {
  EXPECT_EQ(Kinds("a\r\nb\rc\n\n"), (Strings{"data:a\nb\nc\n", "end:"}));
}

TEST(JinjaLexerTest, CountsLinesInsideTagsAndStrings) {
  const auto tokens = Tokenize("a\n{{\n'x\ny'\nb }}");
  ASSERT_TRUE(tokens.ok());
  const Token& name = (*tokens)[3];
  EXPECT_EQ(name.text, "b");
  EXPECT_EQ(name.line, 5);
}

TEST(JinjaLexerTest, SaysWhereAMalformedTagBegins) {
  const std::pair<const char*, const char*> kCases[] = {
      {"a\n{{ b", "line 2: a tag is not closed by }}"},
      {"{% b", "line 1: a tag is not closed by %}"},
      {"{# b", "line 1: a comment is not closed by #}"},
      {"\n\n{{ 'b }}", "line 3: a string is not closed"},
      {"{{ 'b\\", "line 1: a string is not closed"},
      {"{{ a $ b }}", "line 1: unexpected character '$'"},
      {"{{ \u00e9 }}", "line 1: unexpected character '\u00e9'"},
      {"{{ (a] }}", "line 1: unexpected ']'"},
      {"{{ 012 }}", "line 1: the number 012 begins with 0"},
      {"{{ 1x }}", "line 1: numbers other than decimal ones are not supported"},
      {"{{ '\\x4' }}", "line 1: a string has a malformed numeric escape"},
      {"{{ '\\U00110000' }}", "line 1: a string has an escape that is no character"},
  };
  for (const auto& [source, message] : kCases) {
    EXPECT_EQ(Kinds(source), (Strings{message})) << source;
  }
}

}  // namespace
}  // namespace asymserve::jinja
