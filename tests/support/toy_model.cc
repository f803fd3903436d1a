#include "tests/support/toy_model.h"

#include <cmath>
#include <cstring>
#include <numbers>
#include <span>
#include <vector>

#include <nlohmann/json.hpp>

#include "engine/base/check.h"
#include "engine/base/dequantize.h"
#include "tests/support/file_io.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/toy_tensors.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve::testing {
namespace {

/// Divisors of the rotary frequencies by the rule of the Llama 3.1 model card.
std::vector<float> Llama3Divisors(const ToyModel& model) {
  const RopeScaling& scaling = model.rope_scaling;
  const double original = scaling.original_context;
  std::vector<float> divisors;
  for (int32_t pair = 0; pair < model.head_size / 2; ++pair) {
    const double frequency = std::pow(static_cast<double>(model.rope_base),
                                      -2.0 * pair / static_cast<double>(model.head_size));
    const double turns = original * frequency / (2 * std::numbers::pi);  // over the old context
    double divisor = 1;
    if (turns < scaling.low_freq_factor) {
      divisor = scaling.factor;
    } else if (turns < scaling.high_freq_factor) {
      const double smooth =
          (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
      divisor = 1 / ((1 - smooth) / scaling.factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

void AddModelKeys(const ToyModel& model, GgufWriter& writer) {
  const std::string& arch = model.architecture;
  const auto size = [](int32_t value) { return static_cast<uint32_t>(value); };
  writer.AddString("general.architecture", arch);
  writer.AddString("general.name", "toy");
  writer.AddU32(arch + ".block_count", size(model.layers));
  writer.AddU32(arch + ".context_length", size(model.context_length));
  writer.AddU32(arch + ".embedding_length", size(model.width));
  writer.AddU32(arch + ".feed_forward_length", size(model.feed_forward_width));
  writer.AddU32(arch + ".attention.head_count", size(model.heads));
  writer.AddU32(arch + ".attention.head_count_kv", size(model.kv_heads));
  writer.AddU32(arch + ".attention.key_length", size(model.head_size));
  writer.AddU32(arch + ".attention.value_length", size(model.head_size));
  writer.AddF32(arch + ".attention.layer_norm_rms_epsilon", model.norm_epsilon);
  writer.AddF32(arch + ".rope.freq_base", model.rope_base);
  if (model.rope_scaling.kind == RopeScaling::Kind::kLinear) {
    writer.AddString(arch + ".rope.scaling.type", "linear");
    writer.AddF32(arch + ".rope.scaling.factor", model.rope_scaling.factor);
  }
}

void AddTokenizerKeys(const ToyModel& model, GgufWriter& writer) {
  const TokenizerSpec spec = ToyTokenizerSpec(model.vocabulary);
  std::vector<int32_t> types;
  for (const auto type : spec.types) types.push_back(static_cast<int32_t>(type));
  writer.AddString("tokenizer.ggml.model", "gpt2");
  writer.AddString("tokenizer.ggml.pre", spec.pre_tokenizer);
  writer.AddStrings("tokenizer.ggml.tokens", spec.tokens);
  writer.AddI32s("tokenizer.ggml.token_type", types);
  writer.AddStrings("tokenizer.ggml.merges", spec.merges);
  writer.AddU32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(spec.bos));
  writer.AddU32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(spec.eos));
  writer.AddBool("tokenizer.ggml.add_bos_token", spec.add_bos);
  writer.AddString("tokenizer.chat_template", spec.chat_template);
}

std::string FloatBytes(const std::vector<float>& values) {
  std::string bytes(values.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

nlohmann::json HfConfig(const ToyModel& model) {
  const std::string class_prefix = model.architecture == "llama"   ? "Llama"
                                   : model.architecture == "qwen2" ? "Qwen2"
                                                                   : "Qwen3";
  nlohmann::json config = {{"architectures", {class_prefix + "ForCausalLM"}},
                           {"model_type", model.architecture},
                           {"num_hidden_layers", model.layers},
                           {"hidden_size", model.width},
                           {"intermediate_size", model.feed_forward_width},
                           {"num_attention_heads", model.heads},
                           {"num_key_value_heads", model.kv_heads},
                           {"head_dim", model.head_size},
                           {"vocab_size", model.vocabulary},
                           {"max_position_embeddings", model.context_length},
                           {"rms_norm_eps", model.norm_epsilon},
                           {"rope_theta", model.rope_base},
                           {"tie_word_embeddings", model.tied_output},
                           {"hidden_act", "silu"},
                           {"bos_token_id", kToyEndOfText},
                           {"eos_token_id", {kToyTurnEnd, kToyEndOfText}}};
  const RopeScaling& scaling = model.rope_scaling;
  if (scaling.kind == RopeScaling::Kind::kLinear) {
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", scaling.factor}};
  } else if (scaling.kind == RopeScaling::Kind::kLlama3) {
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", scaling.factor},
                              {"low_freq_factor", scaling.low_freq_factor},
                              {"high_freq_factor", scaling.high_freq_factor},
                              {"original_max_position_embeddings", scaling.original_context}};
  }
  return config;
}

std::string SafetensorsBytes(const ToyModel& model, std::span<const ToyTensor> tensors) {
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::string data;
  for (const ToyTensor& tensor : tensors) {
    ASYMSERVE_CHECK(Info(tensor.dtype).block_elements == 1);
    const size_t begin = data.size();
    data += ToyTensorBytes(model, tensor, /*interleave=*/false);
    nlohmann::json shape = {tensor.rows, tensor.cols};
    if (tensor.is_vector) shape = nlohmann::json::array({tensor.cols});
    header[tensor.hf_name] = {{"dtype", Info(tensor.dtype).name},
                              {"shape", shape},
                              {"data_offsets", {begin, data.size()}}};
  }
  const std::string text = header.dump();
  return U64Bytes(text.size()) + text + data;
}

}  // namespace

void WriteToyGguf(const ToyModel& model, const std::string& path) {
  GgufWriter writer;
  AddModelKeys(model, writer);
  AddTokenizerKeys(model, writer);
  if (model.rope_scaling.kind == RopeScaling::Kind::kLlama3) {
    const std::vector<float> divisors = Llama3Divisors(model);
    writer.AddTensor("rope_freqs.weight", {divisors.size()}, DType::kF32, FloatBytes(divisors));
  }
  for (const ToyTensor& tensor : ToyTensors(model)) {
    const auto cols = static_cast<uint64_t>(tensor.cols);
    std::string bytes = ToyTensorBytes(model, tensor, model.architecture == "llama");
    if (tensor.is_vector) {
      const auto* row = reinterpret_cast<const std::byte*>(bytes.data());
      bytes = FloatBytes(DequantizeRow(tensor.dtype, row, tensor.cols));
      writer.AddTensor(tensor.gguf_name, {cols}, DType::kF32, bytes);
    } else {
      writer.AddTensor(tensor.gguf_name, {cols, static_cast<uint64_t>(tensor.rows)}, tensor.dtype,
                       bytes);
    }
  }
  WriteFile(path, writer.Build());
}

void WriteToyFolder(const ToyModel& model, const std::string& path, int shards) {
  WriteFile(path + "/config.json", HfConfig(model).dump(2));
  WriteFile(path + "/tokenizer.json", ToyTokenizerJson());
  WriteFile(path + "/tokenizer_config.json", ToyTokenizerConfigJson());
  const std::vector<ToyTensor> tensors = ToyTensors(model);
  if (shards == 1) {
    WriteFile(path + "/model.safetensors", SafetensorsBytes(model, tensors));
    return;
  }
  nlohmann::json weight_map;
  const auto count = static_cast<size_t>(shards);
  for (size_t shard = 0; shard < count; ++shard) {
    const size_t begin = tensors.size() * shard / count;
    const size_t end = tensors.size() * (shard + 1) / count;
    const std::string name = "model-" + std::to_string(shard + 1) + ".safetensors";
    const std::span<const ToyTensor> part(tensors.data() + begin, end - begin);
    WriteFile(std::string(path).append("/").append(name), SafetensorsBytes(model, part));
    for (const ToyTensor& tensor : part) weight_map[tensor.hf_name] = name;
  }
  const nlohmann::json index = {{"metadata", {{"total_size", 0}}}, {"weight_map", weight_map}};
  WriteFile(path + "/model.safetensors.index.json", index.dump(2));
}

}  // namespace asymserve::testing
