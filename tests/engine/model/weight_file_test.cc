#include "engine/model/weight_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>

#include <nlohmann/json.hpp>

#include "engine/base/dequantize.h"
#include "tests/support/file_io.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::GgmlType;
using testing::IsOk;
using testing::ReadFile;
using testing::TempDir;
using testing::ToyModel;
using testing::U32Bytes;
using testing::U64Bytes;
using testing::WriteFile;
using testing::WriteToyFolder;
using testing::WriteToyGguf;
using enum absl::StatusCode;

std::vector<float> Row(const WeightSource& source, int64_t row) {
  return DequantizeRow(source.dtype, source.data + row * RowBytes(source.dtype, source.cols),
                       source.cols);
}

/// Replaces the only occurrence of `from` in a file by `to`, of the same length.
void Patch(const std::string& path, const std::string& from, const std::string& to) {
  std::string bytes = ReadFile(path);
  const size_t at = bytes.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  ASSERT_EQ(bytes.find(from, at + 1), std::string::npos) << from;
  ASSERT_EQ(from.size(), to.size());
  WriteFile(path, bytes.replace(at, from.size(), to));
}

TEST(WeightFileTest, FindsTheTensorsOfAGguf) {
  const TempDir folder;
  WriteToyGguf({.dtype = DType::kQ8_0, .embedding_dtype = DType::kQ4_0}, folder.Path("toy.gguf"));
  const auto file = OpenWeightFile(folder.Path("toy.gguf"));
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->config().name, "toy");
  EXPECT_EQ((*file)->summary(), "Q8_0");
  EXPECT_EQ((*file)->tokenizer_spec().tokens, testing::ToyTokenizerSpec(288).tokens);
  const auto up = (*file)->Find("blk.1.ffn_up.weight");
  ASSERT_THAT(up, IsOk());
  EXPECT_EQ(up->dtype, DType::kQ8_0);
  EXPECT_EQ(up->rows, 96);
  EXPECT_EQ(up->cols, 64);
  const auto norm = (*file)->Find("output_norm.weight");
  ASSERT_THAT(norm, IsOk());
  EXPECT_EQ(norm->rows, 1);
  EXPECT_EQ(norm->cols, 64);
  EXPECT_THAT((*file)->Find("output.weight"), FailsWith(kNotFound, "'output.weight'"));
  EXPECT_THAT((*file)->Find("rope_freqs.weight"), FailsWith(kNotFound, "'rope_freqs.weight'"));
}

TEST(WeightFileTest, KeepsBytesReadableAfterDiscard) {
  const TempDir folder;
  WriteToyGguf({.width = 256}, folder.Path("toy.gguf"));
  const auto file = OpenWeightFile(folder.Path("toy.gguf"));
  ASSERT_THAT(file, IsOk());
  const WeightSource table = *(*file)->Find("token_embd.weight");
  const std::vector<float> before = Row(table, 100);
  (*file)->Discard(table);
  EXPECT_EQ(Row(table, 100), before);
}

TEST(WeightFileTest, OpensEveryWeightType) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0,
                            DType::kQ4_1, DType::kQ4K, DType::kQ5K, DType::kQ6K}) {
    SCOPED_TRACE(Info(dtype).name);
    const TempDir folder;
    const ToyModel toy{.width = 256,
                       .feed_forward_width = 256,
                       .head_size = 64,
                       .tied_output = false,
                       .dtype = dtype,
                       .embedding_dtype = dtype};
    WriteToyGguf(toy, folder.Path("toy.gguf"));
    const auto file = OpenWeightFile(folder.Path("toy.gguf"));
    ASSERT_THAT(file, IsOk());
    EXPECT_EQ((*file)->summary(), Info(dtype).name);
    EXPECT_EQ((*file)->Find("output.weight")->dtype, dtype);
    EXPECT_FALSE((*file)->config().tied_output);
  }
}

/// Row of a q or k matrix in GGUF's order that equals row `row` of the Hugging Face order.
int64_t InterleavedRow(int64_t row, int64_t head_size) {
  const int64_t channel = row % head_size;
  const int64_t half = head_size / 2;
  return row - channel + channel % half * 2 + channel / half;
}

TEST(WeightFileTest, ReadsTheSameModelFromBothFormats) {
  for (const char* architecture : {"llama", "qwen2", "qwen3"}) {
    SCOPED_TRACE(architecture);
    const TempDir folder;
    const ToyModel toy{.architecture = architecture,
                       .head_size = 24,
                       .tied_output = false,
                       .dtype = DType::kBF16,
                       .embedding_dtype = DType::kF16,
                       .vector_dtype = DType::kBF16};
    WriteToyGguf(toy, folder.Path("toy.gguf"));
    WriteToyFolder(toy, folder.path().string(), 3);
    const auto gguf = OpenWeightFile(folder.Path("toy.gguf"));
    const auto hf = OpenWeightFile(folder.path().string());
    ASSERT_THAT(gguf, IsOk());
    ASSERT_THAT(hf, IsOk());
    EXPECT_EQ((*hf)->config().qkv_bias, (*gguf)->config().qkv_bias);
    EXPECT_EQ((*hf)->config().qk_norm, (*gguf)->config().qk_norm);
    EXPECT_EQ((*hf)->config().attention.head_size, (*gguf)->config().attention.head_size);
    EXPECT_EQ((*hf)->tokenizer_spec().tokens.size(), (*gguf)->tokenizer_spec().tokens.size());
    EXPECT_EQ((*hf)->summary(), "BF16");
    const bool interleaved = (*gguf)->config().rope_style == RopeStyle::kInterleaved;
    EXPECT_EQ(interleaved, toy.architecture == "llama");
    EXPECT_EQ((*hf)->config().rope_style, RopeStyle::kHalves);
    for (const char* name :
         {"token_embd.weight", "output.weight", "blk.1.attn_q.weight", "blk.1.attn_k.weight",
          "blk.0.ffn_down.weight", "blk.0.ffn_norm.weight"}) {
      SCOPED_TRACE(name);
      const WeightSource a = *(*gguf)->Find(name);
      const WeightSource b = *(*hf)->Find(name);
      const bool rotary = std::string(name).find("attn_q.") != std::string::npos ||
                          std::string(name).find("attn_k.") != std::string::npos;
      ASSERT_EQ(a.rows, b.rows);
      for (int64_t row = 0; row < a.rows; ++row) {
        const int64_t other = interleaved && rotary ? InterleavedRow(row, toy.head_size) : row;
        ASSERT_EQ(Row(a, other), Row(b, row)) << "row " << row;
      }
    }
  }
}

TEST(WeightFileTest, NamesAMissingOrMisshapenTensor) {
  struct Case {
    const char* description;
    std::string from;
    std::string to;
    absl::StatusCode code;
    const char* message;
  };
  const auto u32_key = [](const std::string& key, uint32_t value) {
    return key + U32Bytes(4) + U32Bytes(value);
  };
  const auto vector_entry = [](const std::string& name, DType dtype) {
    return name + U32Bytes(1) + U64Bytes(64) + U32Bytes(GgmlType(dtype));
  };
  const Case cases[] = {
      {"a tensor of another name", "blk.1.ffn_up.weight", "blk.1.ffn_UP.weight", kNotFound,
       "'blk.1.ffn_up.weight' is missing"},
      {"a wider feed-forward", u32_key("llama.feed_forward_length", 96),
       u32_key("llama.feed_forward_length", 128), kInvalidArgument,
       "'blk.0.ffn_gate.weight' is [96, 64], the configuration needs [128, 64]"},
      {"a layer too many", u32_key("llama.block_count", 2), u32_key("llama.block_count", 1),
       kUnimplemented, "'blk.1.attn_k.weight' has no place"},
      {"a layer too few", u32_key("llama.block_count", 2), u32_key("llama.block_count", 3),
       kNotFound, "'blk.2.attn_norm.weight' is missing"},
      {"other heads", u32_key("llama.attention.head_count_kv", 2),
       u32_key("llama.attention.head_count_kv", 4), kInvalidArgument,
       "'blk.0.attn_k.weight' is [32, 64]"},
      {"a quantized norm", vector_entry("output_norm.weight", DType::kF32),
       vector_entry("output_norm.weight", DType::kQ8_0), kUnimplemented,
       "'output_norm.weight' has type Q8_0"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.description);
    const TempDir folder;
    const std::string path = folder.Path("toy.gguf");
    WriteToyGguf({}, path);
    Patch(path, c.from, c.to);
    const auto file = OpenWeightFile(path);
    EXPECT_THAT(file, FailsWith(c.code, c.message));
    EXPECT_THAT(file, FailsWith(c.code, path));
  }
}

TEST(WeightFileTest, NamesAFileThatIsNoModel) {
  const TempDir folder;
  EXPECT_THAT(OpenWeightFile(folder.Path("absent.gguf")), FailsWith(kNotFound, "absent.gguf"));
  WriteFile(folder.Path("empty.gguf"), "");
  EXPECT_THAT(OpenWeightFile(folder.Path("empty.gguf")),
              FailsWith(kInvalidArgument, "empty.gguf is empty"));
  WriteFile(folder.Path("text.gguf"), "once upon a time");
  EXPECT_THAT(OpenWeightFile(folder.Path("text.gguf")),
              FailsWith(kInvalidArgument, "text.gguf: not a GGUF file"));
  EXPECT_THAT(OpenWeightFile(folder.path().string()),
              FailsWith(kNotFound, "config.json is missing"));
}

class FolderTest : public ::testing::Test {
 protected:
  void Write(int shards) { WriteToyFolder(ToyModel(), folder_.path().string(), shards); }
  auto Open() { return OpenWeightFile(folder_.path().string()); }
  /// Rewrites a JSON file of the folder.
  void Edit(const std::string& name, const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json document = nlohmann::json::parse(ReadFile(folder_.Path(name)));
    change(document);
    WriteFile(folder_.Path(name), document.dump());
  }

  TempDir folder_;
};

TEST(WeightFileTest, OpensAFolderOfOneFileOrSeveral) {
  for (const int shards : {1, 2, 5}) {
    SCOPED_TRACE(shards);
    const TempDir folder;
    WriteToyFolder({}, folder.path().string(), shards);
    const auto file = OpenWeightFile(folder.path().string());
    ASSERT_THAT(file, IsOk());
    EXPECT_EQ((*file)->config().name, folder.path().filename());
    EXPECT_EQ((*file)->tokenizer_spec().tokens.size(), 288u);
    EXPECT_EQ((*file)->tokenizer_spec().eos, testing::kToyTurnEnd);
    EXPECT_THAT((*file)->tokenizer_spec().end_ids, ::testing::ElementsAre(testing::kToyEndOfText));
  }
}

TEST_F(FolderTest, ReadsOnlyTheEmbeddingOfATiedModel) {
  Write(1);
  Edit("config.json", [](nlohmann::json& config) { config["tie_word_embeddings"] = false; });
  EXPECT_THAT(Open(), FailsWith(kNotFound, "'output.weight' is missing"));
}

TEST_F(FolderTest, NamesATensorThatTheIndexPromises) {
  Write(2);
  Edit("model.safetensors.index.json", [](nlohmann::json& index) {
    index["weight_map"]["model.layers.7.mlp.up_proj.weight"] = "model-2.safetensors";
  });
  EXPECT_THAT(Open(), FailsWith(kNotFound, "'model.layers.7.mlp.up_proj.weight' is missing"));
  EXPECT_THAT(Open(), FailsWith(kNotFound, "model-2.safetensors"));
}

TEST_F(FolderTest, RefusesAnIndexThatLeavesTheFolder) {
  for (const char* name :
       {"../model.safetensors", "/etc/x.safetensors", "model.bin", "", ".safetensors"}) {
    SCOPED_TRACE(name);
    Write(2);
    Edit("model.safetensors.index.json",
         [name](nlohmann::json& index) { index["weight_map"]["lm_head.weight"] = name; });
    EXPECT_THAT(Open(), FailsWith(kInvalidArgument, "'lm_head.weight' is not mapped"));
  }
}

TEST_F(FolderTest, NamesAMissingShardAndABrokenOne) {
  Write(2);
  std::filesystem::remove(folder_.Path("model-2.safetensors"));
  EXPECT_THAT(Open(), FailsWith(kNotFound, "model-2.safetensors"));
  WriteFile(folder_.Path("model-2.safetensors"), "short");
  EXPECT_THAT(Open(), FailsWith(kInvalidArgument, "model-2.safetensors: the file has 5 bytes"));
}

TEST_F(FolderTest, RefusesATensorThatItWouldIgnore) {
  Write(1);
  Patch(folder_.Path("model.safetensors"), "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proj.lora_A");
  EXPECT_THAT(Open(),
              FailsWith(kUnimplemented, "'model.layers.1.mlp.up_proj.lora_A' has no place"));
}

TEST_F(FolderTest, RefusesATokenizerLargerThanTheVocabulary) {
  Write(1);
  Edit("config.json", [](nlohmann::json& config) { config["vocab_size"] = 100; });
  EXPECT_THAT(Open(), FailsWith(kInvalidArgument, "'token_embd.weight' is [288, 64]"));
}

TEST_F(FolderTest, TakesTheTemplateBesideTheTokenizer) {
  Write(1);
  WriteFile(folder_.Path("chat_template.jinja"), "{{ messages[0]['content'] }}");
  const auto file = Open();
  ASSERT_THAT(file, IsOk());
  EXPECT_EQ((*file)->tokenizer_spec().chat_template, "{{ messages[0]['content'] }}");
}

TEST_F(FolderTest, NamesABadEndTokenAndItsFile) {
  Write(1);
  WriteFile(folder_.Path("generation_config.json"), R"({"eos_token_id": [2, 5000]})");
  EXPECT_THAT(Open(), FailsWith(kInvalidArgument, "generation_config.json: key 'eos_token_id'"));
}

TEST(WeightFileTest, OpensTheDefaultModel) {
  if (!std::filesystem::exists(ASYMSERVE_MODEL_FILE)) {
    GTEST_SKIP() << "no model at " ASYMSERVE_MODEL_FILE " (tools/test fetches it)";
  }
  const auto file = OpenWeightFile(ASYMSERVE_MODEL_FILE);
  ASSERT_THAT(file, IsOk());
  const ModelConfig& config = (*file)->config();
  EXPECT_EQ(config.layers, 30);
  EXPECT_EQ(config.width, 576);
  EXPECT_EQ(config.attention.heads, 9);
  EXPECT_EQ(config.attention.kv_heads, 3);
  EXPECT_EQ(config.attention.head_size, 64);
  EXPECT_EQ(config.vocabulary, 49152);
  EXPECT_EQ(config.rope_base, 100000);
  EXPECT_TRUE(config.tied_output);
  EXPECT_EQ((*file)->summary(), "Q4_1");
  EXPECT_EQ((*file)->tensor_bytes(), 96576768);
}

}  // namespace
}  // namespace asymserve
