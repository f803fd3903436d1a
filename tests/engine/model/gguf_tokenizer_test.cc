#include "engine/model/gguf_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <string>

#include "engine/base/mapped_file.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using ::testing::ElementsAre;
using testing::FailsWith;
using testing::GgufWriter;
using ::testing::IsEmpty;
using testing::IsOk;
using enum absl::StatusCode;
using TokenType = TokenizerSpec::TokenType;

const std::vector<std::string> kTokens = {"a", "b", "ab", "<|endoftext|>", "<|im_end|>", "<stop>"};
const std::vector<int32_t> kTypes = {1, 1, 1, 3, 3, 3};

absl::StatusOr<TokenizerSpec> Read(const GgufWriter& writer) {
  const std::string text = writer.Build();
  const auto gguf = Gguf::Parse(std::as_bytes(std::span(text)));
  if (!gguf.ok()) return gguf.status();
  return TokenizerSpecFromGguf(*gguf);
}

/// Keys without those named in `except`, so that a case can write its own.
GgufWriter BpeKeys(const std::string& except = "") {
  GgufWriter writer;
  if (except != "model") writer.AddString("tokenizer.ggml.model", "gpt2");
  if (except != "pre") writer.AddString("tokenizer.ggml.pre", "smollm");
  if (except != "tokens") writer.AddStrings("tokenizer.ggml.tokens", kTokens);
  if (except != "token_type") writer.AddI32s("tokenizer.ggml.token_type", kTypes);
  const std::vector<std::string> merges = {"a b"};
  if (except != "merges") writer.AddStrings("tokenizer.ggml.merges", merges);
  if (except != "eos") writer.AddU32("tokenizer.ggml.eos_token_id", 4);
  return writer;
}

GgufWriter SentencePieceKeys() {
  GgufWriter writer;
  writer.AddString("tokenizer.ggml.model", "llama");
  writer.AddStrings("tokenizer.ggml.tokens", kTokens);
  return writer;
}

TEST(GgufTokenizerTest, ReadsAByteLevelVocabulary) {
  GgufWriter writer = BpeKeys();
  writer.AddU32("tokenizer.ggml.bos_token_id", 3);
  writer.AddU32("tokenizer.ggml.unknown_token_id", 0);
  writer.AddU32("tokenizer.ggml.padding_token_id", 5);
  writer.AddBool("tokenizer.ggml.add_bos_token", true);
  writer.AddBool("tokenizer.ggml.add_eos_token", true);
  writer.AddString("tokenizer.chat_template", "{{ messages }}");
  const auto spec = Read(writer);
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->kind, TokenizerSpec::Kind::kByteLevelBpe);
  EXPECT_EQ(spec->pre_tokenizer, "smollm");
  EXPECT_EQ(spec->tokens, kTokens);
  EXPECT_THAT(spec->types,
              ElementsAre(TokenType::kNormal, TokenType::kNormal, TokenType::kNormal,
                          TokenType::kControl, TokenType::kControl, TokenType::kControl));
  EXPECT_THAT(spec->merges, ElementsAre("a b"));
  EXPECT_EQ(spec->bos, 3);
  EXPECT_EQ(spec->eos, 4);
  EXPECT_EQ(spec->unknown, 0);
  EXPECT_EQ(spec->padding, 5);
  EXPECT_TRUE(spec->add_bos);
  EXPECT_TRUE(spec->add_eos);
  EXPECT_FALSE(spec->add_space_prefix);
  EXPECT_EQ(spec->chat_template, "{{ messages }}");
}

TEST(GgufTokenizerTest, ReadsASentencePieceVocabularyWithItsDefaults) {
  GgufWriter writer = SentencePieceKeys();
  const std::vector<float> scores = {0, -1, -2, -3, -4, -5};
  writer.AddF32s("tokenizer.ggml.scores", scores);
  const auto spec = Read(writer);
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->kind, TokenizerSpec::Kind::kSentencePiece);
  EXPECT_EQ(spec->scores, scores);
  EXPECT_TRUE(spec->add_bos);
  EXPECT_FALSE(spec->add_eos);
  EXPECT_TRUE(spec->add_space_prefix);
}

TEST(GgufTokenizerTest, EndsAtTurnTokensAndAtKnownControlTokens) {
  GgufWriter writer = BpeKeys();
  writer.AddU32("tokenizer.ggml.eot_token_id", 5);
  const auto spec = Read(writer);
  ASSERT_THAT(spec, IsOk());
  EXPECT_THAT(spec->end_ids, ElementsAre(5, 3));  // 4 is the eos itself
}

TEST(GgufTokenizerTest, DoesNotEndAtAnOrdinaryTokenThatLooksLikeOne) {
  GgufWriter writer = BpeKeys("token_type");
  const std::vector<int32_t> types = {1, 1, 1, 4, 1, 1};
  writer.AddI32s("tokenizer.ggml.token_type", types);
  const auto spec = Read(writer);
  ASSERT_THAT(spec, IsOk());
  EXPECT_THAT(spec->end_ids, IsEmpty());
}

TEST(GgufTokenizerTest, AddsBosForLlama3WhichDoesNotSaySo) {
  GgufWriter writer = BpeKeys("pre");
  writer.AddString("tokenizer.ggml.pre", "llama-bpe");
  EXPECT_TRUE(Read(writer)->add_bos);
  EXPECT_FALSE(Read(BpeKeys())->add_bos);
}

TEST(GgufTokenizerTest, TreatsMinusOneAsNoToken) {
  GgufWriter writer = BpeKeys("eos");
  writer.AddU32("tokenizer.ggml.eos_token_id", UINT32_MAX);
  const auto spec = Read(writer);
  ASSERT_THAT(spec, IsOk());
  EXPECT_EQ(spec->eos, -1);
}

TEST(GgufTokenizerTest, NamesTheKeyThatIsWrong) {
  struct Case {
    const char* key;
    std::function<GgufWriter()> file;
    absl::StatusCode code;
    const char* message;
  };
  const std::vector<int32_t> five_types = {1, 1, 1, 1, 1};
  const std::vector<int32_t> odd_types = {1, 1, 7, 1, 1, 1};
  const std::vector<float> nan_scores = {0, 0, std::nanf(""), 0, 0, 0};
  const auto with = [](GgufWriter writer, const std::function<void(GgufWriter&)>& change) {
    change(writer);
    return writer;
  };
  const Case cases[] = {
      {"model missing", [&] { return BpeKeys("model"); }, kNotFound, "'tokenizer.ggml.model'"},
      {"model unknown",
       [&] {
         return with(BpeKeys("model"),
                     [](GgufWriter& w) { w.AddString("tokenizer.ggml.model", "bert"); });
       },
       kUnimplemented, "'tokenizer.ggml.model' is 'bert'"},
      {"tokens missing", [&] { return BpeKeys("tokens"); }, kNotFound, "'tokenizer.ggml.tokens'"},
      {"tokens empty",
       [&] {
         return with(BpeKeys("tokens"), [](GgufWriter& w) {
           w.AddStrings("tokenizer.ggml.tokens", std::vector<std::string>{});
         });
       },
       kInvalidArgument, "'tokenizer.ggml.tokens' has 0 tokens"},
      {"merges missing", [&] { return BpeKeys("merges"); }, kNotFound, "'tokenizer.ggml.merges'"},
      {"types short",
       [&] {
         return with(BpeKeys("token_type"),
                     [&](GgufWriter& w) { w.AddI32s("tokenizer.ggml.token_type", five_types); });
       },
       kInvalidArgument, "'tokenizer.ggml.token_type' has 5 entries for 6 tokens"},
      {"types odd",
       [&] {
         return with(BpeKeys("token_type"),
                     [&](GgufWriter& w) { w.AddI32s("tokenizer.ggml.token_type", odd_types); });
       },
       kInvalidArgument, "gives token 2 the unknown type 7"},
      {"eos out of range",
       [&] {
         return with(BpeKeys("eos"),
                     [](GgufWriter& w) { w.AddU32("tokenizer.ggml.eos_token_id", 6); });
       },
       kInvalidArgument, "'tokenizer.ggml.eos_token_id' is 6"},
      {"scores missing", [&] { return SentencePieceKeys(); }, kNotFound, "'tokenizer.ggml.scores'"},
      {"scores not finite",
       [&] {
         return with(SentencePieceKeys(),
                     [&](GgufWriter& w) { w.AddF32s("tokenizer.ggml.scores", nan_scores); });
       },
       kInvalidArgument, "'tokenizer.ggml.scores' gives token 2 a score"},
      {"flag of another type",
       [&] {
         return with(BpeKeys(), [](GgufWriter& w) { w.AddU32("tokenizer.ggml.add_bos_token", 1); });
       },
       kInvalidArgument, "'tokenizer.ggml.add_bos_token' is u32"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key);
    EXPECT_THAT(Read(c.file()), FailsWith(c.code, c.message));
  }
}

TEST(GgufTokenizerTest, ReadsTheVocabulariesOfRealModels) {
  const std::filesystem::path folder = ASYMSERVE_SHARED_DIR "/data/tokenizers";
  if (!std::filesystem::exists(folder)) GTEST_SKIP() << "no " << folder;
  struct Case {
    const char* file;
    TokenizerSpec::Kind kind;
    const char* pre_tokenizer;
    size_t tokens;
    int32_t eos;
  };
  constexpr auto kBpe = TokenizerSpec::Kind::kByteLevelBpe;
  constexpr auto kPieces = TokenizerSpec::Kind::kSentencePiece;
  const Case cases[] = {
      {"ggml-vocab-deepseek-llm.gguf", kBpe, "deepseek-llm", 102400, 100001},
      {"ggml-vocab-falcon.gguf", kBpe, "falcon", 65024, 11},
      {"ggml-vocab-gpt-2.gguf", kBpe, "gpt-2", 50257, 50256},
      {"ggml-vocab-llama-bpe.gguf", kBpe, "llama-bpe", 128256, 128001},
      {"ggml-vocab-llama-spm.gguf", kPieces, "", 32000, 2},
      {"ggml-vocab-phi-3.gguf", kPieces, "", 32064, 32000},
      {"ggml-vocab-qwen2.gguf", kBpe, "qwen2", 151936, 151643},
      {"ggml-vocab-starcoder.gguf", kBpe, "starcoder", 49152, 0},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.file);
    const auto file = MappedFile::Open((folder / c.file).string());
    ASSERT_THAT(file, IsOk());
    const auto gguf = Gguf::Parse(file->bytes());
    ASSERT_THAT(gguf, IsOk());
    const auto spec = TokenizerSpecFromGguf(*gguf);
    ASSERT_THAT(spec, IsOk());
    EXPECT_EQ(spec->kind, c.kind);
    EXPECT_EQ(spec->pre_tokenizer, c.pre_tokenizer);
    EXPECT_EQ(spec->tokens.size(), c.tokens);
    EXPECT_EQ(spec->eos, c.eos);
  }
}

}  // namespace
}  // namespace asymserve
