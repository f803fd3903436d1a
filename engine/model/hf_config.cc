#include "engine/model/hf_config.h"

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include <nlohmann/json.hpp>

#include "engine/base/status.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

using nlohmann::json;

struct Family {
  std::string_view class_name;
  std::string_view architecture;
  bool qkv_bias;
  bool qk_norm;
  int32_t default_window;  // of the family's configuration class when the key is absent; 0: none
};

constexpr std::array<Family, 4> kFamilies = {{
    {"LlamaForCausalLM", "llama", false, false, 0},
    {"MistralForCausalLM", "mistral", false, false, 4096},
    {"Qwen2ForCausalLM", "qwen2", true, false, 0},
    {"Qwen3ForCausalLM", "qwen3", false, true, 0},
}};

absl::Status WrongKey(std::string_view key, std::string_view problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("key ", Printable(key), " ", std::string(problem)));
}

absl::Status NotImplemented(std::string_view key, std::string_view feature) {
  return absl::UnimplementedError(absl::StrCat("key ", Printable(key), " asks for ",
                                               std::string(feature), ", which is not implemented"));
}

/// Typed reading of one JSON object; null counts as absent.
class Keys {
 public:
  explicit Keys(const json& object) : object_(object) {}

  const json* Find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  absl::StatusOr<int32_t> Size(const char* key,
                               std::optional<int32_t> absent = std::nullopt) const {
    const json* value = Find(key);
    if (value == nullptr && absent) return *absent;
    if (value == nullptr) return Missing(key);
    if (!value->is_number_integer() || value->get<int64_t>() < 1 ||
        value->get<int64_t>() > INT32_MAX) {  // beyond 2^63 wraps to a negative number
      return WrongKey(key, "is no positive 32-bit integer");
    }
    return static_cast<int32_t>(value->get<int64_t>());
  }

  absl::StatusOr<float> Float(const char* key, std::optional<float> absent = std::nullopt) const {
    const json* value = Find(key);
    if (value == nullptr && absent) return *absent;
    if (value == nullptr) return Missing(key);
    const double number = value->is_number() ? value->get<double>() : NAN;
    if (!(number > 0 && number < 1e30)) return WrongKey(key, "is no positive number");
    return static_cast<float>(number);
  }

  absl::StatusOr<bool> Bool(const char* key, bool absent) const {
    const json* value = Find(key);
    if (value == nullptr) return absent;
    if (!value->is_boolean()) return WrongKey(key, "is neither true nor false");
    return value->get<bool>();
  }

  absl::StatusOr<std::string> String(const char* key, std::string_view absent) const {
    const json* value = Find(key);
    if (value == nullptr) return std::string(absent);
    if (!value->is_string()) return WrongKey(key, "is no string");
    return value->get<std::string>();
  }

 private:
  static absl::Status Missing(const char* key) {
    return absl::NotFoundError(absl::StrCat("key ", Printable(key), " is missing"));
  }
  const json& object_;
};

absl::StatusOr<Family> FindFamily(const Keys& keys) {
  const json* classes = keys.Find("architectures");
  if (classes == nullptr) return absl::NotFoundError("key 'architectures' is missing");
  if (!classes->is_array() || classes->size() != 1 || !(*classes)[0].is_string()) {
    return WrongKey("architectures", "is no list of one class name");
  }
  const auto name = (*classes)[0].get<std::string>();
  for (const Family& family : kFamilies) {
    if (family.class_name == name) return family;
  }
  return absl::UnimplementedError(absl::StrCat(
      "key 'architectures' is ", Printable(name),
      ", supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"));
}

/// Windowed attention equals full attention as long as the context fits into the window.
absl::Status RefuseSlidingWindow(const Keys& keys, const json& config, const Family& family,
                                 int32_t context_length) {
  ASYMSERVE_ASSIGN_OR_RETURN(const bool used,
                             keys.Bool("use_sliding_window", family.architecture == "mistral"));
  const bool stated = config.contains("sliding_window");
  int32_t window = stated ? 0 : family.default_window;
  if (keys.Find("sliding_window") != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(window, keys.Size("sliding_window"));
  }
  if (used && window != 0 && window < context_length) {
    return NotImplemented("sliding_window", absl::StrCat("attention over ", window, " of ",
                                                         context_length, " positions"));
  }
  if (const json* types = keys.Find("layer_types"); types != nullptr) {
    if (!types->is_array()) return WrongKey("layer_types", "is no list");
    for (const json& type : *types) {
      if (type != "full_attention") {
        return NotImplemented("layer_types", "layers other than full_attention");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status RefuseUnsupported(const Keys& keys) {
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (keys.Find(key) != nullptr) return NotImplemented(key, "a mixture of experts");
  }
  if (keys.Find("quantization_config") != nullptr) {
    return NotImplemented("quantization_config", "quantized safetensors");
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string activation, keys.String("hidden_act", "silu"));
  if (activation != "silu") {
    return NotImplemented("hidden_act", "the activation " + Printable(activation));
  }
  for (const char* key : {"attention_bias", "mlp_bias"}) {
    ASYMSERVE_ASSIGN_OR_RETURN(const bool bias, keys.Bool(key, false));
    if (bias) return NotImplemented(key, "biases in the output or feed-forward projections");
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const float partial, keys.Float("partial_rotary_factor", 1.0f));
  if (partial != 1.0f) return NotImplemented("partial_rotary_factor", "partial rotary embedding");
  return absl::OkStatus();
}

absl::Status ReadRopeScaling(const Keys& keys, const char* section, RopeScaling& scaling) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string old_type, keys.String("type", "default"));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string type, keys.String("rope_type", old_type));
  if (type == "default") return absl::OkStatus();
  if (type != "linear" && type != "llama3") {
    return NotImplemented(section, "rope type " + Printable(type));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(scaling.factor, keys.Float("factor"));
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::kLinear;
    return absl::OkStatus();
  }
  scaling.kind = RopeScaling::Kind::kLlama3;
  ASYMSERVE_ASSIGN_OR_RETURN(scaling.low_freq_factor, keys.Float("low_freq_factor"));
  ASYMSERVE_ASSIGN_OR_RETURN(scaling.high_freq_factor, keys.Float("high_freq_factor"));
  ASYMSERVE_ASSIGN_OR_RETURN(scaling.original_context,
                             keys.Size("original_max_position_embeddings"));
  return absl::OkStatus();
}

/// rope_theta and rope_scaling, which newer files hold together in rope_parameters.
absl::Status ReadRope(const Keys& keys, ModelConfig& config) {
  ASYMSERVE_ASSIGN_OR_RETURN(config.rope_base, keys.Float("rope_theta", 10000.0f));
  for (const char* section : {"rope_scaling", "rope_parameters"}) {
    const json* object = keys.Find(section);
    if (object == nullptr) continue;
    if (!object->is_object()) return WrongKey(section, "is no object");
    const Keys inner(*object);
    absl::Status read = ReadRopeScaling(inner, section, config.rope_scaling);
    if (!read.ok()) return Annotate(read, absl::StrCat("in ", section));
    ASYMSERVE_ASSIGN_OR_RETURN(config.rope_base, inner.Float("rope_theta", config.rope_base));
    ASYMSERVE_ASSIGN_OR_RETURN(const float partial, inner.Float("partial_rotary_factor", 1.0f));
    if (partial != 1.0f) return NotImplemented(section, "partial rotary embedding");
  }
  return absl::OkStatus();
}

absl::Status ReadAttention(const Keys& keys, ModelConfig& config) {
  AttentionShape& shape = config.attention;
  ASYMSERVE_ASSIGN_OR_RETURN(shape.heads, keys.Size("num_attention_heads"));
  ASYMSERVE_ASSIGN_OR_RETURN(shape.kv_heads, keys.Size("num_key_value_heads", shape.heads));
  if (keys.Find("head_dim") == nullptr && config.width % shape.heads != 0) {
    return WrongKey("hidden_size", absl::StrCat("is ", config.width, ", no multiple of the ",
                                                shape.heads, " attention heads"));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(shape.head_size, keys.Size("head_dim", config.width / shape.heads));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromHf(const json& document) {
  const Keys keys(document);
  ASYMSERVE_ASSIGN_OR_RETURN(const Family family, FindFamily(keys));
  ASYMSERVE_RETURN_IF_ERROR(RefuseUnsupported(keys));
  ModelConfig config;
  config.architecture = std::string(family.architecture);
  config.rope_style = RopeStyle::kHalves;
  config.qkv_bias = family.qkv_bias;
  config.qk_norm = family.qk_norm;
  ASYMSERVE_ASSIGN_OR_RETURN(config.tied_output, keys.Bool("tie_word_embeddings", false));
  ASYMSERVE_ASSIGN_OR_RETURN(config.layers, keys.Size("num_hidden_layers"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.width, keys.Size("hidden_size"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.feed_forward_width, keys.Size("intermediate_size"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.vocabulary, keys.Size("vocab_size"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.context_length, keys.Size("max_position_embeddings"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.norm_epsilon, keys.Float("rms_norm_eps"));
  ASYMSERVE_RETURN_IF_ERROR(RefuseSlidingWindow(keys, document, family, config.context_length));
  ASYMSERVE_RETURN_IF_ERROR(ReadAttention(keys, config));
  ASYMSERVE_RETURN_IF_ERROR(ReadRope(keys, config));
  ASYMSERVE_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

}  // namespace asymserve
