#include "engine/model/hf_config.h"

#include <gtest/gtest.h>

#include <string>

#include <nlohmann/json.hpp>

#include "engine/model/hf_names.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using nlohmann::json;
using testing::FailsWith;
using testing::IsOk;
using enum absl::StatusCode;

json Base(const char* class_name = "LlamaForCausalLM") {
  return {{"architectures", {class_name}},
          {"hidden_size", 64},
          {"intermediate_size", 160},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 2},
          {"vocab_size", 100},
          {"max_position_embeddings", 2048},
          {"rms_norm_eps", 1e-6},
          {"hidden_act", "silu"},
          {"torch_dtype", "bfloat16"}};
}

json With(json config, const char* key, const json& value) {
  config[key] = value;
  return config;
}

TEST(HfConfigTest, ReadsALlama) {
  const auto config = ModelConfigFromHf(Base());
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->architecture, "llama");
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
  EXPECT_EQ(config->rope_style, RopeStyle::kHalves);
  EXPECT_FALSE(config->tied_output);
  EXPECT_FALSE(config->qkv_bias);
  EXPECT_FALSE(config->qk_norm);
}

TEST(HfConfigTest, KnowsTheDifferencesOfTheFamilies) {
  const auto qwen2 = ModelConfigFromHf(
      With(With(Base("Qwen2ForCausalLM"), "sliding_window", 1024), "tie_word_embeddings", true));
  ASSERT_THAT(qwen2, IsOk());  // use_sliding_window is false when absent
  EXPECT_TRUE(qwen2->qkv_bias);
  EXPECT_TRUE(qwen2->tied_output);
  const auto qwen3 = ModelConfigFromHf(With(Base("Qwen3ForCausalLM"), "head_dim", 128));
  ASSERT_THAT(qwen3, IsOk());
  EXPECT_TRUE(qwen3->qk_norm);
  EXPECT_FALSE(qwen3->qkv_bias);
  EXPECT_EQ(qwen3->attention.head_size, 128);
  const auto mistral =
      ModelConfigFromHf(With(Base("MistralForCausalLM"), "sliding_window", nullptr));
  ASSERT_THAT(mistral, IsOk());
  EXPECT_EQ(mistral->architecture, "mistral");
}

TEST(HfConfigTest, ReadsRopeScaling) {
  const auto linear =
      ModelConfigFromHf(With(Base(), "rope_scaling", {{"type", "linear"}, {"factor", 4.0}}));
  ASSERT_THAT(linear, IsOk());
  EXPECT_EQ(linear->rope_scaling.kind, RopeScaling::Kind::kLinear);
  EXPECT_EQ(linear->rope_scaling.factor, 4);

  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 8192}};
  const auto scaled = ModelConfigFromHf(With(Base(), "rope_scaling", llama3));
  ASSERT_THAT(scaled, IsOk());
  EXPECT_EQ(scaled->rope_scaling.kind, RopeScaling::Kind::kLlama3);
  EXPECT_EQ(scaled->rope_scaling.factor, 8);
  EXPECT_EQ(scaled->rope_scaling.low_freq_factor, 1);
  EXPECT_EQ(scaled->rope_scaling.high_freq_factor, 4);
  EXPECT_EQ(scaled->rope_scaling.original_context, 8192);

  const auto none = ModelConfigFromHf(With(Base(), "rope_scaling", {{"rope_type", "default"}}));
  ASSERT_THAT(none, IsOk());
  EXPECT_EQ(none->rope_scaling.kind, RopeScaling::Kind::kNone);

  const auto parameters = ModelConfigFromHf(
      With(Base(), "rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1000000.0}}));
  ASSERT_THAT(parameters, IsOk());
  EXPECT_EQ(parameters->rope_base, 1000000);
}

TEST(HfConfigTest, AcceptsAWindowThatHoldsTheWholeContext) {
  EXPECT_THAT(ModelConfigFromHf(With(Base("MistralForCausalLM"), "sliding_window", 2048)), IsOk());
  EXPECT_THAT(ModelConfigFromHf(Base("MistralForCausalLM")), IsOk());  // 4096 by default
}

TEST(HfConfigTest, NamesTheKeyThatIsWrongOrNotImplemented) {
  const json llama3_reversed = {{"rope_type", "llama3"},
                                {"factor", 8.0},
                                {"low_freq_factor", 4.0},
                                {"high_freq_factor", 1.0},
                                {"original_max_position_embeddings", 8192}};
  struct Case {
    const char* key;
    json value;
    absl::StatusCode code;
    const char* message;
  };
  const Case cases[] = {
      {"architectures", nullptr, kNotFound, "'architectures' is missing"},
      {"architectures", json::array({"MixtralForCausalLM"}), kUnimplemented,
       "'architectures' is 'MixtralForCausalLM'"},
      {"architectures", "LlamaForCausalLM", kInvalidArgument, "'architectures'"},
      {"hidden_size", nullptr, kNotFound, "'hidden_size' is missing"},
      {"hidden_size", -64, kInvalidArgument, "'hidden_size'"},
      {"hidden_size", 64.5, kInvalidArgument, "'hidden_size'"},
      {"hidden_size", "64", kInvalidArgument, "'hidden_size'"},
      {"hidden_size", 1ull << 40, kInvalidArgument, "'hidden_size'"},
      {"hidden_size", 63, kInvalidArgument, "'hidden_size' is 63"},
      {"num_hidden_layers", 0, kInvalidArgument, "'num_hidden_layers'"},
      {"num_attention_heads", 0, kInvalidArgument, "'num_attention_heads'"},
      {"num_key_value_heads", 3, kInvalidArgument, "no multiple of 3"},
      {"head_dim", 12, kUnimplemented, "head size is 12"},
      {"head_dim", 264, kUnimplemented, "head size is 264"},
      {"rms_norm_eps", nullptr, kNotFound, "'rms_norm_eps' is missing"},
      {"rms_norm_eps", 0, kInvalidArgument, "'rms_norm_eps'"},
      {"rope_theta", -1, kInvalidArgument, "'rope_theta'"},
      {"rope_scaling", 2, kInvalidArgument, "'rope_scaling'"},
      {"rope_scaling", {{"rope_type", "yarn"}}, kUnimplemented, "rope type 'yarn'"},
      {"rope_scaling", {{"rope_type", "linear"}}, kNotFound, "in rope_scaling: key 'factor'"},
      {"rope_scaling", llama3_reversed, kInvalidArgument, "low_freq_factor 4 is not below"},
      {"partial_rotary_factor", 0.5, kUnimplemented, "'partial_rotary_factor'"},
      {"hidden_act", "gelu", kUnimplemented, "'hidden_act'"},
      {"attention_bias", true, kUnimplemented, "'attention_bias'"},
      {"mlp_bias", true, kUnimplemented, "'mlp_bias'"},
      {"mlp_bias", 1, kInvalidArgument, "'mlp_bias'"},
      {"num_local_experts", 8, kUnimplemented, "'num_local_experts'"},
      {"quantization_config", {{"quant_method", "gptq"}}, kUnimplemented, "'quantization_config'"},
      {"layer_types", {"full_attention", "sliding_attention"}, kUnimplemented, "'layer_types'"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.key + (": " + c.value.dump()));
    EXPECT_THAT(ModelConfigFromHf(With(Base(), c.key, c.value)), FailsWith(c.code, c.message));
  }
  EXPECT_THAT(ModelConfigFromHf(With(Base("MistralForCausalLM"), "sliding_window", 512)),
              FailsWith(kUnimplemented, "'sliding_window' asks for attention over 512 of 2048"));
  EXPECT_THAT(ModelConfigFromHf(With(Base("MistralForCausalLM"), "max_position_embeddings", 32768)),
              FailsWith(kUnimplemented, "'sliding_window' asks for attention over 4096 of 32768"));
}

TEST(HfNamesTest, AreTheGgufNamesOfTheSameTensors) {
  EXPECT_EQ(GgufNameOfHf("model.embed_tokens.weight"), "token_embd.weight");
  EXPECT_EQ(GgufNameOfHf("lm_head.weight"), "output.weight");
  EXPECT_EQ(GgufNameOfHf("model.layers.12.self_attn.o_proj.weight"), "blk.12.attn_output.weight");
  EXPECT_EQ(GgufNameOfHf("model.layers.0.post_attention_layernorm.weight"),
            "blk.0.ffn_norm.weight");
  EXPECT_EQ(GgufNameOfHf("model.layers.0.self_attn.q_proj.bias"), "blk.0.attn_q.bias");
}

TEST(HfNamesTest, DoNotExistForOtherTensors) {
  for (const char* name :
       {"", "model", "model.layers.", "model.layers.1", "model.layers..mlp.up_proj.weight",
        "model.layers.x.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight2",
        "model.layers.1.self_attn.o_proj.bias", "transformer.h.0.attn.weight"}) {
    EXPECT_EQ(GgufNameOfHf(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace asymserve
