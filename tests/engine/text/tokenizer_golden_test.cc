// Ids of real vocabularies against those of the tokenizers they come from. The default model's
// are here, and tools/test fetches it; the others are too large for the repository: without them
// their tests skip.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

#include "engine/base/mapped_file.h"
#include "engine/model/gguf.h"
#include "engine/model/gguf_tokenizer.h"
#include "engine/text/nfc.h"
#include "engine/text/tokenizer.h"

namespace asymserve {
namespace {

constexpr EncodeOptions kPlainText = {.add_special = false, .parse_special = false};

struct Vocabulary {
  std::string name, model_file, cases;  // cases: the files <cases>.inp and <cases>.out
};

void PrintTo(const Vocabulary& vocabulary, std::ostream* stream) {
  *stream << vocabulary.name;
}

std::vector<Vocabulary> Vocabularies() {
  const std::string folder = ASYMSERVE_SHARED_DIR "/data/tokenizers/";
  std::vector<Vocabulary> all;
  for (const char* name : {"deepseek-llm", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3",
                           "qwen2", "starcoder"}) {
    const std::string file = folder + "ggml-vocab-" + name + ".gguf";
    all.push_back({name, file, file});
  }
  all.push_back(
      {"smollm2", ASYMSERVE_MODEL_FILE, ASYMSERVE_SOURCE_DIR "/tests/golden/tokenizers/smollm2"});
  return all;
}

std::string ReadFile(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::vector<std::string> ReadInputs(const std::string& path) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  const std::string all = ReadFile(path);
  std::vector<std::string> inputs;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find(kSeparator, at), all.size());
    inputs.push_back(all.substr(at, end - at));
    at = end + kSeparator.size();
  }
  return inputs;
}

std::vector<std::vector<int32_t>> ReadExpected(const std::string& path) {
  std::ifstream stream(path);
  std::vector<std::vector<int32_t>> lines;
  for (std::string line; std::getline(stream, line);) {
    std::istringstream numbers(line);
    lines.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
  }
  return lines;
}

class TokenizerGoldenTest : public ::testing::TestWithParam<Vocabulary> {
 protected:
  void SetUp() override {
    const Vocabulary& vocabulary = GetParam();
    for (const std::string& path : {vocabulary.model_file, vocabulary.cases + ".inp"}) {
      if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
    }
    const auto file = MappedFile::Open(vocabulary.model_file);
    ASSERT_TRUE(file.ok()) << file.status();
    const auto gguf = Gguf::Parse(file->bytes());
    ASSERT_TRUE(gguf.ok()) << gguf.status();
    auto spec = TokenizerSpecFromGguf(*gguf);
    ASSERT_TRUE(spec.ok()) << spec.status();
    auto tokenizer = Tokenizer::Create(*std::move(spec));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
    inputs_ = ReadInputs(vocabulary.cases + ".inp");
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::vector<std::string> inputs_;
};

TEST_P(TokenizerGoldenTest, EncodesEveryInputToTheReferenceIds) {
  const auto expected = ReadExpected(GetParam().cases + ".out");
  ASSERT_EQ(inputs_.size(), expected.size());
  ASSERT_EQ(inputs_.size(), 46u);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const auto ids = tokenizer_->Encode(inputs_[i], kPlainText);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_THAT(*ids, ::testing::ElementsAreArray(expected[i]))
        << "input " << i << ": " << inputs_[i];
  }
}

TEST_P(TokenizerGoldenTest, DecodesBackToEveryInput) {
  for (const std::string& input : inputs_) {
    const auto ids = tokenizer_->Encode(input, kPlainText);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(Decode(*tokenizer_, *ids, /*skip_special=*/false), input);
  }
}

// Words of many letters go through the heap, which must merge as the scan of short words does.
TEST_P(TokenizerGoldenTest, EncodesLongRunsAndDecodesThemBack) {
  constexpr size_t kBytes = 40'000;
  std::string letters(kBytes, 'a');
  for (size_t i = 0; i < kBytes; i += 7) letters[i] = static_cast<char>('a' + i % 23);
  std::vector<std::string> texts = {letters};
  for (const char* unit : {"a", " ", "\n", " \n", "1", "!", "\xE4\xB8\xAD", "a\xCC\xA3\xCC\x81"}) {
    std::string text;
    while (text.size() < kBytes) text += unit;
    texts.push_back(text + "x");
  }
  for (const std::string& text : texts) {
    const auto ids = tokenizer_->Encode(text, kPlainText);
    ASSERT_TRUE(ids.ok()) << ids.status();
    const std::string expected = GetParam().name == "qwen2" ? *NormalizeNfc(text) : text;
    EXPECT_TRUE(Decode(*tokenizer_, *ids, /*skip_special=*/false) == expected)
        << "text that begins with '" << text.substr(0, 5) << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerGoldenTest, ::testing::ValuesIn(Vocabularies()),
                         [](const auto& parameter) {
                           std::string name = parameter.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace asymserve
