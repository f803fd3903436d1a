#include "engine/text/output_text.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

#include "engine/text/utf8.h"
#include "tests/engine/text/toy_vocabulary.h"

namespace asymserve {
namespace {

using TokenType = TokenizerSpec::TokenType;

std::unique_ptr<Tokenizer> Create(TokenizerSpec spec) {
  auto tokenizer = Tokenizer::Create(std::move(spec));
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

struct Result {
  std::string text;
  std::optional<int> stop;
  std::vector<std::string> deltas;
};

Result Deliver(const Tokenizer& tokenizer, const std::vector<int32_t>& ids,
               const OutputTextOptions& options) {
  OutputText output(tokenizer, options);
  Result result;
  for (const int32_t id : ids) {
    std::string delta;
    result.stop = output.Append(id, delta);
    result.deltas.push_back(delta);
    result.text += delta;
    if (result.stop) return result;
  }
  output.Finish(result.text);
  return result;
}

std::vector<int32_t> Bytes(std::string_view text) {
  std::vector<int32_t> ids;
  for (const char byte : text) ids.push_back(static_cast<uint8_t>(byte));
  return ids;
}

TEST(OutputTextTest, HoldsBackAnIncompleteCharacter) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  const Result result = Deliver(*tokenizer, Bytes("a\xF0\x9F\x98\x80z"), {});
  EXPECT_EQ(result.deltas, (std::vector<std::string>{"a", "", "", "", "\xF0\x9F\x98\x80", "z"}));
}

TEST(OutputTextTest, ReplacesACharacterThatTheSequenceNeverCompletes) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  EXPECT_EQ(Deliver(*tokenizer, Bytes("a\xF0\x9F"), {}).text, "a\xEF\xBF\xBD");
}

TEST(OutputTextTest, NeverReleasesAPartOfAStopString) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  const Result result = Deliver(*tokenizer, Bytes("xSTSTOPy"), {.stop_strings = {"STOP"}});
  EXPECT_EQ(result.deltas, (std::vector<std::string>{"x", "", "", "ST", "", "", ""}));
  EXPECT_EQ(result.text, "xST");
  EXPECT_EQ(result.stop, 0);
}

TEST(OutputTextTest, DeliversTheStopStringWhenAsked) {
  const auto tokenizer = Create(ToyByteLevelSpec({{"b", "c"}, {"bc", "d"}}));
  const Result result =
      Deliver(*tokenizer, {'a', 257, 'e'}, {.stop_strings = {"zz", "bc"}, .include_stop = true});
  EXPECT_EQ(result.text, "abc");
  EXPECT_EQ(result.stop, 1);
}

TEST(OutputTextTest, TheStopStringThatCompletesFirstWinsHoweverTheTextIsCut) {
  const auto tokenizer = Create(ToyByteLevelSpec({{"b", "c"}, {"bc", "d"}}));
  const OutputTextOptions options = {.stop_strings = {"bcd", "c"}};
  for (const auto& ids : {Bytes("abcd"), std::vector<int32_t>{'a', 257}}) {
    const Result result = Deliver(*tokenizer, ids, options);
    EXPECT_EQ(result.text, "ab");
    EXPECT_EQ(result.stop, 1);
  }
}

TEST(OutputTextTest, OfStopStringsThatCompleteTogetherTheLongestWins) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  const Result result =
      Deliver(*tokenizer, Bytes("abcd"), {.stop_strings = {"cd", "bcd", "bcd", "d"}});
  EXPECT_EQ(result.text, "a");
  EXPECT_EQ(result.stop, 1);
}

TEST(OutputTextTest, ReleasesTheHeldTextWhenTheSequenceEnds) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  EXPECT_EQ(Deliver(*tokenizer, Bytes("xSTO"), {.stop_strings = {"STOP"}}).text, "xSTO");
}

TEST(OutputTextTest, ControlTokensAreLeftOutUnlessAskedFor) {
  TokenizerSpec spec = ToyByteLevelSpec();
  const int32_t end = AddToken(spec, "<|end|>", TokenType::kControl);
  const int32_t tool = AddToken(spec, "<tool>", TokenType::kUserDefined);
  const auto tokenizer = Create(std::move(spec));
  EXPECT_EQ(Decode(*tokenizer, std::vector<int32_t>{'a', end, tool, 'b'}, true), "a<tool>b");
  EXPECT_EQ(Decode(*tokenizer, std::vector<int32_t>{'a', end, tool, 'b'}, false),
            "a<|end|><tool>b");
}

TEST(OutputTextTest, AControlTokenMayStandInsideACharacterThatItLeavesWhole) {
  TokenizerSpec spec = ToyByteLevelSpec();
  const int32_t end = AddToken(spec, "<|end|>", TokenType::kControl);
  const auto tokenizer = Create(std::move(spec));
  EXPECT_EQ(Decode(*tokenizer, std::vector<int32_t>{0xC3, end, 0xA9}, true), "\xC3\xA9");
}

TEST(OutputTextTest, IdsOutsideTheVocabularyAreNoText) {
  const auto tokenizer = Create(ToyByteLevelSpec());
  EXPECT_EQ(Decode(*tokenizer, std::vector<int32_t>{-1, 'a', 256, 1 << 30}, true), "a");
}

TEST(OutputTextTest, ASentencePieceTextLosesItsLeadingSpaceUnlessItContinuesOne) {
  const auto tokenizer = Create(ToySentencePieceSpec({{"\xE2\x96\x81", -1}, {"a", -2}}));
  const std::vector<int32_t> ids = {1, 259, 260, 259, 260};
  EXPECT_EQ(Deliver(*tokenizer, ids, {}).text, "a a");
  EXPECT_EQ(Deliver(*tokenizer, ids, {.continues_text = true}).text, " a a");
}

/// What the whole text delivers, read off the definition.
Result Expected(const std::string& bytes, const OutputTextOptions& options) {
  Result expected;
  std::string pending;
  std::string text;
  AppendUtf8(bytes, pending, text);
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (size_t i = 0; i < options.stop_strings.size(); ++i) {
      const std::string& stop = options.stop_strings[i];
      if (stop.size() <= longest || stop.size() > end) continue;
      if (text.compare(end - stop.size(), stop.size(), stop) != 0) continue;
      longest = stop.size();
      expected.stop = static_cast<int>(i);
    }
    if (longest > 0) {
      expected.text = text.substr(0, options.include_stop ? end : end - longest);
      return expected;
    }
  }
  expected.text = text;
  if (!pending.empty()) expected.text += kReplacementCharacter;
  return expected;
}

std::string RandomStopString(std::mt19937& random) {
  const std::vector<std::string> letters = {"a", "b", "\xC3\xA9", "\xF0\x9F\x98\x80"};
  std::string stop;
  for (uint32_t i = 0; i <= random() % 5; ++i) stop += letters[random() % letters.size()];
  return stop;
}

TEST(OutputTextTest, DeltasJoinedEqualTheUnaryTextForRandomTokensAndStopStrings) {
  constexpr uint32_t kSeed = 7041776;
  std::mt19937 random(kSeed);
  const auto tokenizer = Create(ToyByteLevelSpec({{"a", "b"},
                                                  {"\xC3", "\xA9"},
                                                  {"\xA9", "a"},
                                                  {"\xF0", "\x9F"},
                                                  {"\x98", "\x80"},
                                                  {"\xF0\x9F", "\x98\x80"},
                                                  {"ab", "a"},
                                                  {"\x80", "b"},
                                                  {"aba", "b"}}));
  const std::vector<int32_t> alphabet = {'a', 'b', 'a', 'b', 0xC3, 0xA9, 0xF0, 0x9F, 0x98, 0x80,
                                         256, 257, 258, 259, 260,  261,  262,  263,  264};
  int stopped = 0;
  for (int round = 0; round < 20'000; ++round) {
    SCOPED_TRACE(testing::Message() << "seed " << kSeed << " round " << round);
    OutputTextOptions options;
    options.include_stop = random() % 2 == 0;
    for (uint32_t i = random() % 4; i > 0; --i) {
      options.stop_strings.push_back(RandomStopString(random));
    }
    std::string bytes;
    std::vector<int32_t> ids;
    for (uint32_t i = random() % 30; i > 0; --i) {
      ids.push_back(alphabet[random() % alphabet.size()]);
      bytes += tokenizer->TokenBytes(ids.back());
    }
    const Result expected = Expected(bytes, options);
    const Result result = Deliver(*tokenizer, ids, options);
    ASSERT_EQ(result.text, expected.text);
    ASSERT_EQ(result.stop, expected.stop);
    for (const std::string& delta : result.deltas) {
      ASSERT_EQ(ValidUtf8Prefix(delta), delta.size());
    }
    stopped += result.stop.has_value() ? 1 : 0;
  }
  EXPECT_GT(stopped, 1000);
}

TEST(OutputTextTest, HoldsBackNoMoreThanWhatMayBecomeAStopString) {
  constexpr uint32_t kSeed = 99;
  std::mt19937 random(kSeed);
  const auto tokenizer = Create(ToyByteLevelSpec());
  for (int round = 0; round < 2'000; ++round) {
    OutputTextOptions options;
    for (int i = 0; i < 3; ++i) {
      std::string stop;
      for (uint32_t length = 2 + random() % 5; length > 0; --length) stop += "ab"[random() % 2];
      options.stop_strings.push_back(stop);
    }
    OutputText output(*tokenizer, options);
    std::string text;
    std::string released;
    for (int i = 0; i < 30; ++i) {
      text += "ab"[random() % 2];
      if (output.Append(text.back(), released)) break;
      size_t held = 0;  // the longest end of the text that begins a stop string
      for (const std::string& stop : options.stop_strings) {
        for (size_t length = 1; length < stop.size() && length <= text.size(); ++length) {
          if (text.ends_with(stop.substr(0, length))) held = std::max(held, length);
        }
      }
      ASSERT_EQ(released, text.substr(0, text.size() - held))
          << "seed " << kSeed << " round " << round;
    }
  }
}

}  // namespace
}  // namespace asymserve
