#include "engine/text/pre_tokenizer.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/text/nfc.h"
#include "engine/text/regex.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Words(std::string_view pre_tokenizer, std::string_view text) {
  const auto created = PreTokenizer::Create(pre_tokenizer);
  EXPECT_TRUE(created.ok()) << created.status();
  std::vector<std::string_view> words;
  const absl::Status status = created->Split(text, words);
  EXPECT_TRUE(status.ok()) << status;
  return {words.begin(), words.end()};
}

std::vector<std::string> Pieces(const Regex& regex, std::string_view text) {
  std::vector<std::string_view> pieces;
  const absl::Status status = regex.Split(std::vector<std::string_view>{text}, pieces);
  EXPECT_TRUE(status.ok()) << status;
  return {pieces.begin(), pieces.end()};
}

TEST(PreTokenizerTest, Gpt2LeavesTheLastSpaceToTheWordBehindIt) {
  EXPECT_THAT(Words("gpt-2", "I've  1234 cats!?\n\n x"),
              ElementsAre("I", "'ve", " ", " 1234", " cats", "!?", "\n\n", " x"));
}

TEST(PreTokenizerTest, SmollmCutsDigitsOneByOne) {
  EXPECT_THAT(Words("smollm", "a 12"), ElementsAre("a", " ", "1", "2"));
}

TEST(PreTokenizerTest, LlamaCutsDigitsInThreesAndQwenOneByOne) {
  EXPECT_THAT(Words("llama-bpe", "x12345 Y'LL"), ElementsAre("x", "123", "45", " Y", "'LL"));
  EXPECT_THAT(Words("qwen2", "x12"), ElementsAre("x", "1", "2"));
}

TEST(PreTokenizerTest, LlamaKeepsLineEndsWithThePunctuationBefore) {
  EXPECT_THAT(Words("llama-bpe", "(a).\r\n  b \n c"),
              ElementsAre("(a", ").\r\n", " ", " b", " \n", " c"));
}

TEST(PreTokenizerTest, FalconCutsPunctuationRunsAndDigitTriples) {
  EXPECT_THAT(Words("falcon", "a+=b 12345"), ElementsAre("a", "+=", "b", " ", "123", "45"));
}

TEST(PreTokenizerTest, FalconCutsCharactersAtBytesThatItsAlphabetWritesAsDigits) {
  EXPECT_THAT(Words("falcon", "a\xE2\xB9\x80"), ElementsAre("a", "\xE2", "\xB9", "\x80"));
}

TEST(PreTokenizerTest, DeepseekSeparatesHanFromLetters) {
  EXPECT_THAT(Words("deepseek-llm",
                    "ab\xE4\xB8\xAD\xE6\x96\x87"
                    " c1  "),
              ElementsAre("ab", "\xE4\xB8\xAD\xE6\x96\x87", " c", "1", "  "));
  EXPECT_THAT(Words("deepseek-coder", "if(x)\n"), ElementsAre("if", "(", "x", ")", "\n"));
}

TEST(PreTokenizerTest, WhiteSpaceIsUnicodesOwn) {
  // U+3000 has the property, U+180E lost it.
  EXPECT_THAT(Words("gpt-2",
                    "\xE3\x80\x80\xE3\x80\x80"
                    "a"),
              ElementsAre("\xE3\x80\x80", "\xE3\x80\x80", "a"));
  EXPECT_THAT(Words("gpt-2", "!\xE1\xA0\x8E!"), ElementsAre("!\xE1\xA0\x8E!"));
}

TEST(PreTokenizerTest, TheWordsOfEveryPreTokenizerJoinToTheText) {
  const std::string text =
      " \t\n a1\xC3\xA9 'S''re don't\r\n\r\n...  \xE4\xB8\xAD\xE6\x96\x87\xF0\x9F\x98\x80 12345 "
      "x_y\n";
  for (const char* name : {"gpt-2", "llama-bpe", "smollm", "starcoder", "qwen2", "deepseek-llm",
                           "deepseek-coder", "falcon", "default"}) {
    std::string joined;
    for (const std::string& word : Words(name, text)) {
      EXPECT_FALSE(word.empty());
      joined += word;
    }
    EXPECT_EQ(joined, text) << name;
  }
}

TEST(PreTokenizerTest, AnUnknownNameIsRefusedWithTheKnownOnes) {
  const auto created = PreTokenizer::Create("tekken");
  EXPECT_EQ(created.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(created.status().message()), HasSubstr("'tekken'"));
  EXPECT_THAT(std::string(created.status().message()), HasSubstr("deepseek-coder"));
}

TEST(RegexTest, AMatchBeyondItsLimitIsAnErrorThatNamesTheOffset) {
  const auto regex = Regex::Compile("x|(?:a+)+[bc]", Regex::Units::kCharacters, 1000);
  ASSERT_TRUE(regex.ok()) << regex.status();
  const std::string text = "x" + std::string(40, 'a') + "d";
  std::vector<std::string_view> pieces;
  const absl::Status status = regex->Split(std::vector<std::string_view>{text}, pieces);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("behind byte 1"));
}

TEST(RegexTest, RefusesWhatDoesNotCompileOrMatchesNothing) {
  EXPECT_EQ(Regex::Compile("(a").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Regex::Compile("a*").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(RegexTest, PiecesAreTheMatchesAndWhatLiesBetween) {
  const auto regex = Regex::Compile("[0-9]+");
  ASSERT_TRUE(regex.ok());
  EXPECT_THAT(Pieces(*regex, "12ab3"), ElementsAre("12", "ab", "3"));
  EXPECT_THAT(Pieces(*regex, "ab"), ElementsAre("ab"));
  EXPECT_THAT(Pieces(*regex, ""), ElementsAre());
}

TEST(NfcTest, ComposesOrdersAndKeepsHangul) {
  EXPECT_EQ(*NormalizeNfc("e\xCC\x81"), "\xC3\xA9");
  EXPECT_EQ(*NormalizeNfc("\xE2\x84\xAB"), "\xC3\x85");  // the Angstrom sign
  // U+0041 with U+0301 (class 230) and U+0323 (class 220): the lower class composes first.
  EXPECT_EQ(*NormalizeNfc("a\xCC\x81\xCC\xA3"), "\xE1\xBA\xA1\xCC\x81");
  EXPECT_EQ(*NormalizeNfc("\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB"), "\xED\x95\x9C");
  EXPECT_EQ(*NormalizeNfc("\xE0\xA5\x98"), "\xE0\xA4\x95\xE0\xA4\xBC");  // a composition exclusion
}

TEST(NfcTest, OnlyTextBelowU0300IsSurelyNormal) {
  EXPECT_TRUE(IsSurelyNfc("caf\xC3\xA9 \xCB\xBF"));
  EXPECT_FALSE(IsSurelyNfc("e\xCC\x80"));
  EXPECT_TRUE(IsSurelyNfc(""));
}

TEST(NfcTest, ALongRunOfMarksIsOrdered) {
  std::string text = "a";
  for (int i = 0; i < 100'000; ++i) text += "\xCC\x81\xCC\xA3";
  const auto normalized = NormalizeNfc(text);
  ASSERT_TRUE(normalized.ok());
  std::string expected = "\xE1\xBA\xA1";
  for (int i = 1; i < 100'000; ++i) expected += "\xCC\xA3";
  for (int i = 0; i < 100'000; ++i) expected += "\xCC\x81";
  EXPECT_TRUE(*normalized == expected);
}

}  // namespace
}  // namespace asymserve
