#include "engine/text/tokenizer.h"

#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "tests/engine/text/toy_vocabulary.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using TokenType = TokenizerSpec::TokenType;
using Ids = std::vector<int32_t>;

constexpr std::string_view kSpacePiece = "\xE2\x96\x81";

std::unique_ptr<Tokenizer> Create(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Create(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

Ids Encode(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  const auto ids = tokenizer.Encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.status();
  return ids.ok() ? *ids : Ids{};
}

absl::Status CreateError(TokenizerSpec spec) {
  return Tokenizer::Create(std::move(spec)).status();
}

void ExpectInvalid(const absl::Status& status, const std::string& part) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

TEST(ByteLevelTokenizerTest, MergesInTheOrderOfTheList) {
  const auto tokenizer = Create(ToyByteLevelSpec({{"b", "c"}, {"a", "b"}, {"bc", "d"}}));
  EXPECT_THAT(Encode(*tokenizer, "abcd"), ElementsAre('a', 258));
  EXPECT_THAT(Encode(*tokenizer, "abd"), ElementsAre(257, 'd'));
  EXPECT_THAT(Encode(*tokenizer, ""), ElementsAre());
}

TEST(ByteLevelTokenizerTest, DoesNotMergeAcrossWords) {
  const auto tokenizer = Create(ToyByteLevelSpec({{"a", " "}, {" ", "b"}}));
  EXPECT_THAT(Encode(*tokenizer, "a b"), ElementsAre('a', 257));
}

TEST(ByteLevelTokenizerTest, DecodesEveryTextBackFromItsTokens) {
  constexpr uint32_t kSeed = 4242;
  std::mt19937 random(kSeed);
  const auto tokenizer = Create(
      ToyByteLevelSpec({{"a", "a"}, {"\xC3", "\xA9"}, {" ", "a"}, {"aa", "aa"}, {"\n", "\n"}}));
  const std::vector<std::string> units = {"a", " ", "\n", "\xC3\xA9", "7", "'", "\xF0\x9F\x98\x80"};
  for (int round = 0; round < 500; ++round) {
    std::string text;
    for (uint32_t i = random() % 200; i > 0; --i) text += units[random() % units.size()];
    ASSERT_EQ(Decode(*tokenizer, Encode(*tokenizer, text), false), text)
        << "seed " << kSeed << " round " << round;
  }
}

TEST(ByteLevelTokenizerTest, AByteWithoutATokenIsAnErrorThatNamesItAndItsPlace) {
  TokenizerSpec spec = ToyByteLevelSpec();
  spec.types[0x04] = TokenType::kUnused;
  const auto tokenizer = Create(spec);
  ExpectInvalid(tokenizer->Encode("ab cd\x04", {}).status(), "byte 0x04 at offset 5");

  spec.unknown = AddToken(spec, "<|endoftext|>", TokenType::kControl);
  ExpectInvalid(Create(spec)->Encode("\x04", {}).status(), "byte 0x04");
}

TEST(ByteLevelTokenizerTest, AByteWithoutATokenBecomesTheUnknownTokenOfText) {
  TokenizerSpec spec = ToyByteLevelSpec();
  spec.types[0x04] = TokenType::kUnused;
  spec.unknown = AddToken(spec, "<unk>", TokenType::kNormal);
  const auto tokenizer = Create(spec);
  EXPECT_THAT(Encode(*tokenizer, "a\x04\x04"), ElementsAre('a', 256, 256));
}

TEST(ByteLevelTokenizerTest, TakesAWholeWordOnlyWhereTheModelSaysSo) {
  TokenizerSpec spec = ToyByteLevelSpec({{"a", "b"}});
  AddToken(spec, "xyz", TokenType::kNormal);  // no merges lead there
  EXPECT_THAT(Encode(*Create(spec), "xyz"), ElementsAre('x', 'y', 'z'));
  spec.whole_words = true;
  EXPECT_THAT(Encode(*Create(spec), "xyz ab"), ElementsAre(257, ' ', 256));
  spec.whole_words.reset();
  spec.pre_tokenizer = "llama-bpe";
  EXPECT_THAT(Encode(*Create(spec), "xyz"), ElementsAre(257));
}

TEST(ByteLevelTokenizerTest, QwenTextIsComposedFirst) {
  TokenizerSpec spec = ToyByteLevelSpec();
  EXPECT_THAT(Encode(*Create(spec), "e\xCC\x81"), ElementsAre('e', 0xCC, 0x81));
  spec.pre_tokenizer = "qwen2";
  EXPECT_THAT(Encode(*Create(spec), "e\xCC\x81"), ElementsAre(0xC3, 0xA9));
  spec.normalize_nfc = false;
  EXPECT_THAT(Encode(*Create(spec), "e\xCC\x81"), ElementsAre('e', 0xCC, 0x81));
}

TEST(TokenizerTest, InvalidUtf8IsRefusedWithItsOffset) {
  ExpectInvalid(Create(ToyByteLevelSpec())->Encode("abc\xFF", {}).status(), "byte 3");
}

TEST(TokenizerTest, AddsTheTokensThatTheModelAsksForOnRequest) {
  TokenizerSpec spec = ToyByteLevelSpec();
  spec.bos = AddToken(spec, "<s>", TokenType::kControl);
  spec.eos = AddToken(spec, "</s>", TokenType::kControl);
  spec.add_bos = spec.add_eos = true;
  const auto tokenizer = Create(spec);
  EXPECT_THAT(Encode(*tokenizer, "a"), ElementsAre(256, 'a', 257));
  EXPECT_THAT(Encode(*tokenizer, "a", {.add_special = false}), ElementsAre('a'));
  EXPECT_TRUE(tokenizer->IsEnd(257));
  EXPECT_FALSE(tokenizer->IsEnd(256));
  EXPECT_FALSE(tokenizer->IsEnd(-1));
}

TEST(TokenizerTest, ControlTokensInTheTextAreTextUnlessParsed) {
  TokenizerSpec spec = ToyByteLevelSpec();
  const int32_t end = AddToken(spec, "<e>", TokenType::kControl);
  const int32_t tool = AddToken(spec, "<tool>", TokenType::kUserDefined);
  const auto tokenizer = Create(spec);
  EXPECT_THAT(Encode(*tokenizer, "a<e><tool>"), ElementsAre('a', '<', 'e', '>', tool));
  EXPECT_THAT(Encode(*tokenizer, "a<e><tool>", {.parse_special = true}),
              ElementsAre('a', end, tool));
}

TEST(TokenizerTest, OfSpecialTokensTheLeftmostThenTheLongestIsTaken) {
  TokenizerSpec spec = ToyByteLevelSpec();
  const int32_t ab = AddToken(spec, "ab", TokenType::kUserDefined);
  const int32_t abc = AddToken(spec, "abc", TokenType::kUserDefined);
  const int32_t bcde = AddToken(spec, "bcde", TokenType::kUserDefined);
  const auto tokenizer = Create(spec);
  EXPECT_THAT(Encode(*tokenizer, "abcde"), ElementsAre(abc, 'd', 'e'));
  EXPECT_THAT(Encode(*tokenizer, "xabxbcde"), ElementsAre('x', ab, 'x', bcde));
}

TEST(TokenizerTest, SpecialTokensSwallowTheSpaceTheirFileSays) {
  TokenizerSpec spec = ToyByteLevelSpec();
  const int32_t right = AddToken(spec, "<r>", TokenType::kUserDefined);
  const int32_t left = AddToken(spec, "<l>", TokenType::kUserDefined);
  spec.strip_right = {right};
  spec.strip_left = {left};
  const auto tokenizer = Create(spec);
  EXPECT_THAT(Encode(*tokenizer, "a <r> \n b"), ElementsAre('a', ' ', right, 'b'));
  EXPECT_THAT(Encode(*tokenizer, "a <l> b"), ElementsAre('a', left, ' ', 'b'));
  EXPECT_THAT(Encode(*tokenizer, "<r>  "), ElementsAre(right));
}

TEST(TokenizerTest, CreateRefusesBrokenSpecsAndNamesWhatIsWrong) {
  const auto broken = [](auto change) {
    TokenizerSpec spec = ToyByteLevelSpec({{"a", "b"}});
    change(spec);
    return CreateError(std::move(spec));
  };
  ExpectInvalid(broken([](auto& s) { s = {}; }), "0 tokens");
  ExpectInvalid(broken([](auto& s) { s.pre_tokenizer = "nonsense"; }), "'nonsense'");
  ExpectInvalid(broken([](auto& s) { s.types.pop_back(); }), "256 token types for 257 tokens");
  ExpectInvalid(broken([](auto& s) { s.types[3] = static_cast<TokenType>(9); }), "token 3");
  ExpectInvalid(broken([](auto& s) { s.merges.push_back("ab c"); }), "merge 1 'ab c'");
  ExpectInvalid(broken([](auto& s) { s.merges.push_back("ab"); }), "merge 1 'ab'");
  ExpectInvalid(broken([](auto& s) { s.merges.push_back(""); }), "merge 1 ''");
  ExpectInvalid(broken([](auto& s) { s.merges.push_back("a \xE4\xB8\xAD"); }), "merge 1");
  ExpectInvalid(broken([](auto& s) { s.eos = 257; }), "eos is 257");
  ExpectInvalid(broken([](auto& s) { s.bos = -2; }), "bos is -2");
  ExpectInvalid(broken([](auto& s) { s.add_bos = true; }), "bos is -1");
  ExpectInvalid(broken([](auto& s) { s.end_ids = {5, -1}; }), "end_ids is -1");
  ExpectInvalid(broken([](auto& s) { s.tokens[7] = std::string(5000, 'x'); }), "token 7");
}

TEST(SentencePieceTokenizerTest, JoinsThePairWithTheBestScoreTheLeftmostOfEquals) {
  const auto tokenizer = Create(ToySentencePieceSpec(
      {{kSpacePiece, -9}, {"a", -9}, {"b", -9}, {"ab", -2}, {"ba", -1}, {"aa", -2}}));
  const int32_t space = 259;
  EXPECT_THAT(Encode(*tokenizer, "aba"), ElementsAre(space, 260, 263));
  EXPECT_THAT(Encode(*tokenizer, "aaa"), ElementsAre(space, 264, 260));
}

TEST(SentencePieceTokenizerTest, WritesTheBytesOfWhatHasNoPiece) {
  const auto tokenizer = Create(ToySentencePieceSpec({{kSpacePiece, -1}, {"a", -2}}));
  const Ids ids = Encode(*tokenizer, "a\xC3\xA9");
  EXPECT_THAT(ids, ElementsAre(259, 260, 3 + 0xC3, 3 + 0xA9));
  EXPECT_EQ(Decode(*tokenizer, ids, true), "a\xC3\xA9");
}

TEST(SentencePieceTokenizerTest, WhereTheSpacePrefixGoes) {
  TokenizerSpec spec = ToySentencePieceSpec({{kSpacePiece, -1}, {"a", -2}});
  const int32_t tool = AddToken(spec, "<t>", TokenType::kUserDefined);
  EXPECT_THAT(Encode(*Create(spec), "a<t> a"), ElementsAre(259, 260, tool, 259, 259, 260));
  spec.prefix_unless_space = true;
  EXPECT_THAT(Encode(*Create(spec), "a<t> a"), ElementsAre(259, 260, tool, 259, 260));
  spec.prefix_first_only = true;
  EXPECT_THAT(Encode(*Create(spec), "a<t>a"), ElementsAre(259, 260, tool, 260));
  spec.add_space_prefix = false;
  EXPECT_THAT(Encode(*Create(spec), "a"), ElementsAre(260));
}

TEST(SentencePieceTokenizerTest, TextCannotSpellOutSpecialOrByteTokens) {
  const auto tokenizer = Create(
      ToySentencePieceSpec({{kSpacePiece, -9}, {"<", -9}, {"s", -9}, {">", -9}, {"<s", -1}}));
  EXPECT_THAT(Encode(*tokenizer, "<s>"), ElementsAre(259, 263, 262));
  EXPECT_THAT(Encode(*tokenizer, "<s>", {.parse_special = true}), ElementsAre(1));
}

TEST(SentencePieceTokenizerTest, AnUnusedPieceFallsBackToItsParts) {
  TokenizerSpec spec =
      ToySentencePieceSpec({{"a", -9}, {"b", -9}, {"c", -9}, {"ab", -1}, {"abc", -2}});
  spec.add_space_prefix = false;
  spec.types[262] = TokenType::kUnused;
  EXPECT_THAT(Encode(*Create(spec), "abab"), ElementsAre(259, 260, 259, 260));
  EXPECT_THAT(Encode(*Create(spec), "abcab"), ElementsAre(263, 259, 260));
}

// Pieces may have a space inside ("a b"), then words cannot be merged one by one.
TEST(SentencePieceTokenizerTest, MergesAcrossASpaceWhereAPieceHasOneInside) {
  const auto tokenizer = Create(ToySentencePieceSpec({{kSpacePiece, -9},
                                                      {"a", -9},
                                                      {"a\xE2\x96\x81", -2},
                                                      {"a\xE2\x96\x81"
                                                       "a",
                                                       -1}}));
  EXPECT_THAT(Encode(*tokenizer, "a a"), ElementsAre(259, 262));
}

TEST(SentencePieceTokenizerTest, CreateRefusesWhatItCannotEncodeWith) {
  TokenizerSpec spec = ToySentencePieceSpec({{"a", -1}});
  spec.tokens[3 + 0x7F] = "<0x7G>";
  ExpectInvalid(CreateError(spec), "<0x7f>");
  spec = ToySentencePieceSpec({{"a", -1}});
  spec.scores.pop_back();
  ExpectInvalid(CreateError(spec), "scores");
  spec = ToySentencePieceSpec({{"a", -1}});
  spec.scores[5] = std::numeric_limits<float>::quiet_NaN();
  ExpectInvalid(CreateError(spec), "token 5 is NaN");
}

}  // namespace
}  // namespace asymserve
