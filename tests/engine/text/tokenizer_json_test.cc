#include "engine/text/tokenizer_json.h"

#include <fstream>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include <nlohmann/json.hpp>

#include "engine/text/tokenizer.h"

namespace asymserve {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr const char* kFolder = ASYMSERVE_SOURCE_DIR "/tests/engine/text/data/";

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream.good()) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

TokenizerSpec Parse(std::string_view text, std::string_view config = "") {
  auto spec = ParseTokenizerJson(text, config);
  EXPECT_TRUE(spec.ok()) << spec.status();
  return spec.ok() ? *std::move(spec) : TokenizerSpec();
}

void ExpectInvalid(const absl::Status& status, const std::string& part) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

class TokenizerJsonFixtureTest : public ::testing::TestWithParam<std::string> {};

// data/make_fixtures.py makes the files and says with what.
TEST_P(TokenizerJsonFixtureTest, EncodesAsTheReferenceDoes) {
  const std::string path = kFolder + GetParam();
  auto tokenizer = Tokenizer::Create(Parse(ReadFile(path + ".json")));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const json cases = json::parse(ReadFile(path + ".expected.json"));
  ASSERT_EQ(cases.size(), 123u);
  for (const json& each : cases) {
    const auto text = each["text"].get<std::string>();
    const auto ids = (*tokenizer)->Encode(text, {.add_special = false, .parse_special = true});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_THAT(*ids, ElementsAreArray(each["ids"].get<std::vector<int32_t>>())) << each["text"];
    const auto all = (*tokenizer)->Encode(text, {.add_special = true, .parse_special = true});
    ASSERT_TRUE(all.ok()) << all.status();
    EXPECT_THAT(*all, ElementsAreArray(each["with_special"].get<std::vector<int32_t>>()));
  }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerJsonFixtureTest,
                         ::testing::Values("gpt2", "smollm", "llama3", "qwen2", "deepseek_coder",
                                           "llama2", "mistral"),
                         [](const auto& parameter) { return parameter.param; });

/// A vocabulary of three tokens in GPT-2's form.
json SmallFile() {
  return json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<|im_end|>", "special": true}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}})");
}

TEST(TokenizerJsonTest, ReadsWhatTheConfigurationSaysAboutSpecialTokens) {
  json file = SmallFile();
  file["added_tokens"].push_back({{"id", 4}, {"content", "<s>"}, {"special", true}});
  file["added_tokens"].push_back({{"id", 5}, {"content", "</s>"}, {"special", true}});
  const TokenizerSpec spec = Parse(file.dump(), R"({
    "bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": "<no such token>",
    "unk_token": null, "add_bos_token": true,
    "chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
  })");
  EXPECT_EQ(spec.bos, 4);
  EXPECT_EQ(spec.eos, 5);
  EXPECT_EQ(spec.unknown, -1);
  EXPECT_EQ(spec.padding, -1);
  EXPECT_TRUE(spec.add_bos);
  EXPECT_FALSE(spec.add_eos);
  EXPECT_EQ(spec.chat_template, "D");
  EXPECT_THAT(spec.end_ids, ElementsAre(3));
}

TEST(TokenizerJsonTest, FillsGapsBetweenIdsWithUnusedTokens) {
  json file = SmallFile();
  file["added_tokens"][0]["id"] = 6;
  const TokenizerSpec spec = Parse(file.dump());
  ASSERT_EQ(spec.tokens.size(), 7u);
  EXPECT_EQ(spec.types[4], TokenizerSpec::TokenType::kUnused);
  EXPECT_EQ(spec.tokens[6], "<|im_end|>");
}

TEST(TokenizerJsonTest, ABrokenFileIsRefusedByTheNameOfWhatIsBroken) {
  ExpectInvalid(ParseTokenizerJson("{", "").status(), "tokenizer.json is not valid JSON");
  ExpectInvalid(ParseTokenizerJson("[]", "").status(), "tokenizer.json is no object");
  ExpectInvalid(ParseTokenizerJson("{}", "").status(), "no 'model'");
  ExpectInvalid(ParseTokenizerJson(SmallFile().dump(), "nul").status(), "tokenizer_config.json");
  ExpectInvalid(ParseTokenizerJson(std::string(100'000, '['), "").status(), "not valid JSON");
}

struct Change {
  const char* pointer;  // RFC 6901, into SmallFile
  json value;
  const char* message;
};

void PrintTo(const Change& change, std::ostream* stream) {
  *stream << change.pointer << " = " << change.value;
}

class TokenizerJsonChangeTest : public ::testing::TestWithParam<Change> {};

TEST_P(TokenizerJsonChangeTest, IsRefusedByName) {
  json file = SmallFile();
  file[json::json_pointer(GetParam().pointer)] = GetParam().value;
  ExpectInvalid(ParseTokenizerJson(file.dump(), "").status(), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    BrokenFields, TokenizerJsonChangeTest,
    ::testing::Values(
        Change{"/model", 7, "'vocab' is missing"}, Change{"/model/type", "Unigram", "'Unigram'"},
        Change{"/model/type", 3, "'type' is 3, not a string"},
        Change{"/model/vocab", json::array(), "'vocab' is missing or no object"},
        Change{"/model/vocab/a", -1, "id of token 'a' is -1"},
        Change{"/model/vocab/a", 1.5, "id of token 'a'"},
        Change{"/model/vocab/a", 4'000'000'000u, "id of token 'a' is 4000000000"},
        Change{"/model/vocab/a", 1, "id 1 is given to the tokens"},
        Change{"/model/merges", "a b", "'merges' is"}, Change{"/model/merges/0", 5, "merge 0 is 5"},
        Change{"/model/merges/0", {"a", "b", "c"}, "merge 0"},
        Change{"/model/merges/0", {"a", "b c"}, "merge 0"},
        Change{"/model/byte_fallback", "yes", "'byte_fallback' is \"yes\", not true or false"},
        Change{"/model/dropout", 0.1, "'dropout'"},
        Change{"/model/end_of_word_suffix", "</w>", "'end_of_word_suffix'"},
        Change{"/model/unk_token", "<unk>", "'unk_token' is '<unk>'"},
        Change{"/added_tokens", 1, "'added_tokens' is 1"},
        Change{"/added_tokens/0", 1, "has no 'content'"},
        Change{"/added_tokens/0/id", nullptr, "id of token '<|im_end|>' is null"},
        Change{"/added_tokens/0/id", 1, "id 1 is given to the tokens 'b' and '<|im_end|>'"},
        Change{"/added_tokens/0/single_word", true, "'single_word'"}));

INSTANTIATE_TEST_SUITE_P(
    UnknownConstructs, TokenizerJsonChangeTest,
    ::testing::Values(
        Change{"/normalizer", {{"type", "Lowercase"}}, "normalizer: step 'Lowercase'"},
        Change{"/normalizer", {{"type", "Prepend"}, {"prepend", "_"}}, "step 'Prepend'"},
        Change{"/normalizer", json::array(), "no 'type'"},
        Change{"/pre_tokenizer", nullptr, "combination []"},
        Change{"/pre_tokenizer/type", "Whitespace", "pre_tokenizer: step 'Whitespace'"},
        Change{"/pre_tokenizer/add_prefix_space", true, "add_prefix_space"},
        Change{"/pre_tokenizer/use_regex", false, "combination [<ByteLevel>]"},
        Change{"/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", 3}}, "'pretokenizers'"},
        Change{"/pre_tokenizer",
               {{"type", "Split"}, {"pattern", {{"Regex", "x+"}}}, {"behavior", "Isolated"}},
               "combination [x+]"},
        Change{"/pre_tokenizer",
               {{"type", "Split"}, {"pattern", {{"Regex", "x+"}}}, {"behavior", "MergedWithNext"}},
               "behavior 'MergedWithNext'"},
        Change{"/pre_tokenizer",
               {{"type", "Split"}, {"pattern", {{"String", " "}}}, {"behavior", "Isolated"}},
               "without a 'Regex'"},
        Change{"/post_processor", {{"type", "BertProcessing"}}, "step 'BertProcessing'"},
        Change{"/post_processor",
               {{"type", "TemplateProcessing"}, {"single", {{{"SpecialToken", {{"id", "<s>"}}}}}}},
               "token '<s>' is not in the vocabulary"},
        Change{"/post_processor", {{"type", "TemplateProcessing"}}, "without the text"}));

TEST(TokenizerJsonTest, MetaspaceMustNotSplit) {
  json file = json::parse(ReadFile(std::string(kFolder) + "mistral.json"));
  file["pre_tokenizer"]["split"] = true;
  ExpectInvalid(ParseTokenizerJson(file.dump(), "").status(), "Metaspace with split");
}

TEST(TokenizerJsonTest, ANameOfTheConfigurationMustBeAToken) {
  ExpectInvalid(ParseTokenizerJson(SmallFile().dump(), R"({"eos_token": "</s>"})").status(),
                "'eos_token' is '</s>'");
  ExpectInvalid(ParseTokenizerJson(SmallFile().dump(), R"({"add_bos_token": 1})").status(),
                "'add_bos_token' is 1");
}

}  // namespace
}  // namespace asymserve
