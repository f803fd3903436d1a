#include "config/yaml_entries.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

using ::testing::HasSubstr;

std::string Repeat(std::string_view text, size_t count) {
  std::string repeated;
  for (size_t i = 0; i < count; ++i) repeated += text;
  return repeated;
}

TEST(YamlEntriesTest, JoinsNestedKeysAndKeepsLinesAndKinds) {
  const auto entries = ReadYamlEntries("a:\n  b: 1\n  c: 'x y'\n\nd: ~\ne: [1, {f: 2}]\n", "f");
  ASSERT_TRUE(entries.ok()) << entries.status();
  ASSERT_EQ(entries->size(), 5u);
  using Kind = YamlEntry::Kind;
  const YamlEntry expected[] = {{"a", Kind::kMap, "", 1},
                                {"a.b", Kind::kPlain, "1", 2},
                                {"a.c", Kind::kQuoted, "x y", 3},
                                {"d", Kind::kNull, "", 5},
                                {"e", Kind::kList, "", 6}};
  for (size_t i = 0; i < 5; ++i) {
    SCOPED_TRACE(i);
    EXPECT_EQ((*entries)[i].key, expected[i].key);
    EXPECT_EQ((*entries)[i].kind, expected[i].kind);
    EXPECT_EQ((*entries)[i].text, expected[i].text);
    EXPECT_EQ((*entries)[i].line, expected[i].line);
  }
}

TEST(YamlEntriesTest, RefusesHostileNestingWithoutExhaustingTheStack) {
  for (const char* open : {"[", "{a: ", "- ", "? ", "{", "[{", "\"", "&a ", "!a ", "*a ", "|\n "}) {
    const std::string text = Repeat(open, 100'000 / std::string_view(open).size());
    EXPECT_FALSE(ReadYamlEntries(text, "f").ok()) << open;
  }
}

TEST(YamlEntriesTest, RefusesAnAliasBombAtItsFirstAnchor) {
  std::string text = "a: &a [x, x, x, x, x, x, x, x, x]\n";
  for (char c = 'b'; c <= 'z'; ++c) {
    const std::string last = std::string("*") + static_cast<char>(c - 1);
    text += absl::StrCat(std::string(1, c), ": &", std::string(1, c), " [", Repeat(last + ", ", 8),
                         last, "]\n");
  }
  const auto entries = ReadYamlEntries(text, "f");
  EXPECT_EQ(std::string(entries.status().message()), "f:1: anchors (&name) are not supported");
}

TEST(YamlEntriesTest, RefusesMoreThanAMebibyteUnread) {
  const auto entries = ReadYamlEntries(std::string(kMaxYamlBytes + 1, '['), "f");
  EXPECT_THAT(std::string(entries.status().message()), HasSubstr("larger than 1048576 bytes"));
}

TEST(YamlEntriesTest, MessagesQuoteUnprintableTextEscapedAndCut) {
  EXPECT_EQ(Quoted("a\n\x01\xff\""), "\"a\\n\\x01\\xff\\\"\"");
  EXPECT_EQ(Printable(std::string(1000, 'x')), std::string(40, 'x') + "...");
}

}  // namespace
}  // namespace asymserve
