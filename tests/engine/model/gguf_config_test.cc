#include "engine/model/gguf_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <string>
#include <string_view>

#include "tests/support/gguf_writer.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::GgufWriter;
using testing::IsOk;
using testing::U32Bytes;
using enum absl::StatusCode;

/// A valid set of keys for `architecture`, less the key "<architecture>.<except>".
GgufWriter Keys(const std::string& architecture, std::string_view except = "") {
  GgufWriter writer;
  if (except != "architecture") writer.AddString("general.architecture", architecture);
  const auto size = [&](const char* suffix, uint32_t value) {
    if (except != suffix) writer.AddU32(architecture + "." + suffix, value);
  };
  size("block_count", 3);
  size("context_length", 2048);
  size("embedding_length", 64);
  size("feed_forward_length", 160);
  size("attention.head_count", 8);
  size("attention.head_count_kv", 2);
  if (except != "attention.layer_norm_rms_epsilon") {
    writer.AddF32(architecture + ".attention.layer_norm_rms_epsilon", 1e-6f);
  }
  const std::vector<std::string> tokens(100, "t");
  if (except != "tokens") writer.AddStrings("tokenizer.ggml.tokens", tokens);
  return writer;
}

absl::StatusOr<ModelConfig> Read(const GgufWriter& writer) {
  const std::string text = writer.Build();
  const auto gguf = Gguf::Parse(std::as_bytes(std::span(text)));
  if (!gguf.ok()) return gguf.status();
  return ModelConfigFromGguf(*gguf);
}

TEST(GgufConfigTest, ReadsALlama) {
  GgufWriter writer = Keys("llama");
  writer.AddString("general.name", "tiny");
  const auto config = Read(writer);
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, "llama");
  EXPECT_EQ(config->name, "tiny");
  EXPECT_EQ(config->layers, 3);
  EXPECT_EQ(config->width, 64);
  EXPECT_EQ(config->feed_forward_width, 160);
  EXPECT_EQ(config->vocabulary, 100);
  EXPECT_EQ(config->attention.heads, 8);
  EXPECT_EQ(config->attention.kv_heads, 2);
  EXPECT_EQ(config->attention.head_size, 8);
  EXPECT_EQ(config->context_length, 2048);
  EXPECT_EQ(config->norm_epsilon, 1e-6f);
  EXPECT_EQ(config->rope_base, 10000);
  EXPECT_EQ(config->rope_style, RopeStyle::kInterleaved);
  EXPECT_EQ(config->rope_scaling.kind, RopeScaling::Kind::kNone);
  EXPECT_TRUE(config->tied_output);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_FALSE(config->qk_norm);
}

TEST(GgufConfigTest, KnowsWhatQwenDoesDifferently) {
  const auto qwen2 = Read(Keys("qwen2"));
  ASSERT_THAT(qwen2, IsOk());
  EXPECT_EQ(qwen2->rope_style, RopeStyle::kHalves);
  EXPECT_TRUE(qwen2->qkv_bias);
  EXPECT_FALSE(qwen2->qk_norm);
  GgufWriter writer = Keys("qwen3");
  writer.AddU32("qwen3.attention.key_length", 128);
  writer.AddU32("qwen3.attention.value_length", 128);
  const auto qwen3 = Read(writer);
  ASSERT_THAT(qwen3, IsOk());
  EXPECT_EQ(qwen3->rope_style, RopeStyle::kHalves);
  EXPECT_FALSE(qwen3->qkv_bias);
  EXPECT_TRUE(qwen3->qk_norm);
  EXPECT_EQ(qwen3->attention.head_size, 128);
}

TEST(GgufConfigTest, TakesAllHeadsForKeysWhenTheFileDoesNotSay) {
  const auto config = Read(Keys("llama", "attention.head_count_kv"));
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->attention.kv_heads, 8);
}

TEST(GgufConfigTest, ReadsRopeScalingInItsThreeForms) {
  GgufWriter linear = Keys("llama");
  linear.AddString("llama.rope.scaling.type", "linear");
  linear.AddF32("llama.rope.scaling.factor", 4);
  linear.AddF32("llama.rope.freq_base", 500000);
  EXPECT_EQ(Read(linear)->rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(Read(linear)->rope_scaling.factor, 4);
  EXPECT_EQ(Read(linear)->rope_base, 500000);

  GgufWriter old = Keys("llama");
  old.AddF32("llama.rope.scale_linear", 2);
  EXPECT_EQ(Read(old)->rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(Read(old)->rope_scaling.factor, 2);

  GgufWriter factors = Keys("llama");
  std::string bytes;
  for (const uint32_t bits : {0x3F800000u, 0x40000000u, 0x40800000u, 0x41000000u}) {
    bytes += U32Bytes(bits);
  }
  factors.AddTensor("rope_freqs.weight", {4}, DType::kF32, bytes);
  EXPECT_EQ(Read(factors)->rope_factors, (std::vector<float>{1, 2, 4, 8}));
}

TEST(GgufConfigTest, TakesAnOutputMatrixAndBiasesFromTheTensors) {
  GgufWriter writer = Keys("llama");
  writer.AddTensor("output.weight", {1}, DType::kF32, "xxxx");
  writer.AddTensor("blk.0.attn_q.bias", {1}, DType::kF32, "xxxx");
  const auto config = Read(writer);
  ASSERT_THAT(config, IsOk());
  EXPECT_FALSE(config->tied_output);
  EXPECT_TRUE(config->qkv_bias);
}

struct Case {
  const char* replaced;  // key left out, the change writes another
  std::function<void(GgufWriter&)> change;
  absl::StatusCode code;
  const char* message;
};

void Nothing(GgufWriter&) {}

const Case kCases[] = {
    {"architecture", Nothing, kNotFound, "'general.architecture' is missing"},
    {"architecture", [](GgufWriter& w) { w.AddString("general.architecture", "mamba"); },
     kUnimplemented, "'general.architecture' is 'mamba'"},
    {"block_count", Nothing, kNotFound, "'llama.block_count' is missing"},
    {"block_count", [](GgufWriter& w) { w.AddU32("llama.block_count", 0); }, kInvalidArgument,
     "'llama.block_count' is 0"},
    {"block_count", [](GgufWriter& w) { w.AddU32("llama.block_count", 1 << 30); }, kInvalidArgument,
     "number of layers is 1073741824"},
    {"embedding_length",
     [](GgufWriter& w) { w.AddRaw("llama.embedding_length", 5, U32Bytes(0xFFFFFFC0)); },
     kInvalidArgument, "'llama.embedding_length' is -64"},
    {"embedding_length", [](GgufWriter& w) { w.AddU32("llama.embedding_length", 63); },
     kInvalidArgument, "'llama.embedding_length' is 63, no multiple of the 8 attention heads"},
    {"feed_forward_length",
     [](GgufWriter& w) {
       w.AddI32s("llama.feed_forward_length", std::vector<int32_t>{160, 160, 96});
     },
     kInvalidArgument, "'llama.feed_forward_length' is an array of 3 i32"},
    {"feed_forward_length", [](GgufWriter& w) { w.AddF32("llama.feed_forward_length", 160); },
     kInvalidArgument, "'llama.feed_forward_length' is f32"},
    {"context_length", [](GgufWriter& w) { w.AddU32("llama.context_length", UINT32_MAX); },
     kInvalidArgument, "'llama.context_length' is 4294967295"},
    {"attention.head_count", [](GgufWriter& w) { w.AddU32("llama.attention.head_count", 0); },
     kInvalidArgument, "'llama.attention.head_count' is 0"},
    {"attention.head_count_kv", [](GgufWriter& w) { w.AddU32("llama.attention.head_count_kv", 3); },
     kInvalidArgument, "8 attention heads are no multiple of 3"},
    {"", [](GgufWriter& w) { w.AddU32("llama.attention.key_length", 12); }, kUnimplemented,
     "head size is 12"},
    {"", [](GgufWriter& w) { w.AddU32("llama.attention.key_length", 512); }, kUnimplemented,
     "head size is 512"},
    {"", [](GgufWriter& w) { w.AddU32("llama.attention.value_length", 16); }, kUnimplemented,
     "'llama.attention.value_length' is 16"},
    {"", [](GgufWriter& w) { w.AddU32("llama.rope.dimension_count", 4); }, kUnimplemented,
     "'llama.rope.dimension_count' is 4"},
    {"", [](GgufWriter& w) { w.AddF32("llama.rope.freq_base", -1); }, kInvalidArgument,
     "'llama.rope.freq_base' is -1"},
    {"", [](GgufWriter& w) { w.AddString("llama.rope.scaling.type", "yarn"); }, kUnimplemented,
     "'llama.rope.scaling.type' is 'yarn'"},
    {"", [](GgufWriter& w) { w.AddString("llama.rope.scaling.type", "linear"); }, kNotFound,
     "'llama.rope.scaling.factor' is missing"},
    {"", [](GgufWriter& w) { w.AddTensor("rope_freqs.weight", {3}, DType::kF32, "123412341234"); },
     kInvalidArgument, "'rope_freqs.weight' is F32 with 3 values, need 4"},
    {"", [](GgufWriter& w) { w.AddTensor("rope_freqs.weight", {4}, DType::kF16, "12341234"); },
     kInvalidArgument, "'rope_freqs.weight' is F16"},
    {"",
     [](GgufWriter& w) {
       w.AddTensor("rope_freqs.weight", {4}, DType::kF32, std::string(16, '\0'));
     },
     kInvalidArgument, "a rope factor is 0"},
    {"attention.layer_norm_rms_epsilon",
     [](GgufWriter& w) { w.AddF32("llama.attention.layer_norm_rms_epsilon", std::nanf("")); },
     kInvalidArgument, "'llama.attention.layer_norm_rms_epsilon' is not finite"},
    {"attention.layer_norm_rms_epsilon",
     [](GgufWriter& w) { w.AddF32("llama.attention.layer_norm_rms_epsilon", -1e-5f); },
     kInvalidArgument, "'llama.attention.layer_norm_rms_epsilon' is -1e-05"},
    {"attention.layer_norm_rms_epsilon", Nothing, kNotFound,
     "'llama.attention.layer_norm_rms_epsilon' is missing"},
    {"tokens", Nothing, kNotFound, "'tokenizer.ggml.tokens' is missing"},
    {"", [](GgufWriter& w) { w.AddU32("llama.vocab_size", 101); }, kInvalidArgument,
     "'llama.vocab_size' is 101, but there are 100 tokens"},
    {"", [](GgufWriter& w) { w.AddU32("llama.expert_count", 8); }, kUnimplemented,
     "'llama.expert_count' asks for a mixture of experts"},
    {"", [](GgufWriter& w) { w.AddU32("llama.attention.sliding_window", 1024); }, kUnimplemented,
     "'llama.attention.sliding_window' asks for"},
    {"", [](GgufWriter& w) { w.AddF32("llama.attention.scale", 0.1f); }, kUnimplemented,
     "'llama.attention.scale' asks for"},
    {"", [](GgufWriter& w) { w.AddU32("split.count", 2); }, kUnimplemented, "'split.count' is 2"},
};

TEST(GgufConfigTest, NamesTheKeyThatIsWrongOrNotImplemented) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.message);
    GgufWriter writer = Keys("llama", c.replaced);
    c.change(writer);
    EXPECT_THAT(Read(writer), FailsWith(c.code, c.message));
  }
}

TEST(GgufConfigTest, IgnoresExpertAndWindowKeysThatSayNone) {
  GgufWriter writer = Keys("llama");
  writer.AddU32("llama.expert_count", 0);
  writer.AddU32("llama.attention.sliding_window", 0);
  writer.AddU32("split.count", 1);
  EXPECT_THAT(Read(writer), IsOk());
}

}  // namespace
}  // namespace asymserve
