#include "engine/model/gguf_config.h"

#include <array>
#include <cstring>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/model/printable.h"

namespace asymserve {
namespace {

struct Family {
  std::string_view architecture;
  RopeStyle rope_style;
  bool qkv_bias;
  bool qk_norm;
};

// Converters permute q and k of the Llama family so that rotary pairs are neighbours.
constexpr std::array<Family, 3> kFamilies = {{
    {"llama", RopeStyle::kInterleaved, false, false},
    {"qwen2", RopeStyle::kHalves, true, false},
    {"qwen3", RopeStyle::kHalves, false, true},
}};

absl::StatusOr<Family> FindFamily(const Gguf& gguf) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view name, gguf.String("general.architecture"));
  for (const Family& family : kFamilies) {
    if (family.architecture == name) return family;
  }
  return absl::UnimplementedError(absl::StrCat("key 'general.architecture' is ", Printable(name),
                                               ", supported are llama, qwen2, qwen3"));
}

/// Keys of one architecture: "<architecture>.<suffix>".
class ArchitectureKeys {
 public:
  ArchitectureKeys(const Gguf& gguf, std::string_view architecture)
      : gguf_(gguf), prefix_(std::string(architecture) + ".") {}

  std::string Key(std::string_view suffix) const { return prefix_ + std::string(suffix); }
  bool Has(std::string_view suffix) const { return gguf_.Find(Key(suffix)) != nullptr; }

  /// A size; absent gives `absent`, or NotFound without one.
  absl::StatusOr<int32_t> Size(std::string_view suffix,
                               std::optional<int32_t> absent = std::nullopt) const {
    if (absent && !Has(suffix)) return *absent;
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t value, gguf_.Integer(Key(suffix)));
    if (value < 1 || value > INT32_MAX) {
      return absl::InvalidArgumentError(absl::StrCat("key ", Printable(Key(suffix)), " is ", value,
                                                     ", need a positive 32-bit number"));
    }
    return static_cast<int32_t>(value);
  }

  absl::StatusOr<float> Float(std::string_view suffix,
                              std::optional<float> absent = std::nullopt) const {
    if (absent && !Has(suffix)) return *absent;
    ASYMSERVE_ASSIGN_OR_RETURN(const float value, gguf_.Float(Key(suffix)));
    if (value <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("key ", Printable(Key(suffix)), " is ", value, ", need a positive number"));
    }
    return value;
  }

  absl::StatusOr<std::string_view> String(std::string_view suffix) const {
    return gguf_.String(Key(suffix));
  }

  /// Refuses a key that switches on arithmetic we do not have, unless it is the integer 0.
  absl::Status RefuseUnlessZero(std::string_view suffix, std::string_view feature) const {
    if (!Has(suffix)) return absl::OkStatus();
    const absl::StatusOr<int64_t> value = gguf_.Integer(Key(suffix));
    if (value.ok() && *value == 0) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat("key ", Printable(Key(suffix)), " asks for ",
                                                 std::string(feature),
                                                 ", which is not implemented"));
  }

 private:
  const Gguf& gguf_;
  std::string prefix_;
};

absl::Status RefuseUnsupported(const Gguf& gguf, const ArchitectureKeys& keys) {
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("expert_count", "a mixture of experts"));
  ASYMSERVE_RETURN_IF_ERROR(
      keys.RefuseUnlessZero("attention.sliding_window", "sliding-window attention"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("attention.scale", "a scale of the scores"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("attention.clamp_kqv", "clamped projections"));
  ASYMSERVE_RETURN_IF_ERROR(
      keys.RefuseUnlessZero("attention.max_alibi_bias", "linear position biases"));
  ASYMSERVE_RETURN_IF_ERROR(
      keys.RefuseUnlessZero("attn_logit_softcapping", "soft-capped attention scores"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("final_logit_softcapping", "soft-capped logits"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("logit_scale", "scaled logits"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("residual_scale", "scaled residuals"));
  ASYMSERVE_RETURN_IF_ERROR(keys.RefuseUnlessZero("embedding_scale", "scaled embeddings"));
  if (gguf.Find("split.count") != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(const int64_t parts, gguf.Integer("split.count"));
    if (parts > 1) {
      return absl::UnimplementedError(
          absl::StrCat("key 'split.count' is ", parts, ": merge the parts into one file first"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadAttention(const ArchitectureKeys& keys, ModelConfig& config) {
  AttentionShape& shape = config.attention;
  ASYMSERVE_ASSIGN_OR_RETURN(shape.heads, keys.Size("attention.head_count"));
  ASYMSERVE_ASSIGN_OR_RETURN(shape.kv_heads, keys.Size("attention.head_count_kv", shape.heads));
  if (!keys.Has("attention.key_length") && config.width % shape.heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(keys.Key("embedding_length")),
                                                   " is ", config.width, ", no multiple of the ",
                                                   shape.heads, " attention heads"));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(shape.head_size,
                             keys.Size("attention.key_length", config.width / shape.heads));
  for (const char* suffix : {"attention.value_length", "rope.dimension_count"}) {
    ASYMSERVE_ASSIGN_OR_RETURN(const int32_t size, keys.Size(suffix, shape.head_size));
    if (size != shape.head_size) {
      return absl::UnimplementedError(absl::StrCat("key ", Printable(keys.Key(suffix)), " is ",
                                                   size, ", only the whole head size ",
                                                   shape.head_size, " is implemented"));
    }
  }
  return absl::OkStatus();
}

absl::Status ReadRope(const Gguf& gguf, const ArchitectureKeys& keys, ModelConfig& config) {
  ASYMSERVE_ASSIGN_OR_RETURN(config.rope_base, keys.Float("rope.freq_base", 10000.0f));
  std::string_view type = "none";
  if (keys.Has("rope.scaling.type")) {
    ASYMSERVE_ASSIGN_OR_RETURN(type, keys.String("rope.scaling.type"));
  } else if (keys.Has("rope.scale_linear")) {
    type = "linear";
  }
  if (type == "linear") {
    config.rope_scaling.kind = RopeScaling::Kind::kLinear;
    const bool old = !keys.Has("rope.scaling.factor") && keys.Has("rope.scale_linear");
    ASYMSERVE_ASSIGN_OR_RETURN(config.rope_scaling.factor,
                               keys.Float(old ? "rope.scale_linear" : "rope.scaling.factor"));
  } else if (type != "none") {
    return absl::UnimplementedError(absl::StrCat("key ", Printable(keys.Key("rope.scaling.type")),
                                                 " is ", Printable(type),
                                                 ", supported are none and linear"));
  }
  const GgufTensor* factors = gguf.FindTensor("rope_freqs.weight");
  if (factors == nullptr) return absl::OkStatus();
  if (factors->dtype != DType::kF32 || factors->rank != 1 ||
      factors->extents[0] != config.attention.head_size / 2) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tensor 'rope_freqs.weight' is ", Info(factors->dtype).name, " with ", factors->extents[0],
        " values, need ", config.attention.head_size / 2, " of F32"));
  }
  config.rope_factors.resize(static_cast<size_t>(factors->extents[0]));
  std::memcpy(config.rope_factors.data(), factors->data.data(), factors->data.size());
  return absl::OkStatus();
}

absl::Status ReadVocabularySize(const Gguf& gguf, const ArchitectureKeys& keys,
                                ModelConfig& config) {
  const GgufValue* tokens = gguf.Find("tokenizer.ggml.tokens");
  if (tokens == nullptr) {
    return absl::NotFoundError("key 'tokenizer.ggml.tokens' is missing");
  }
  if (tokens->count > INT32_MAX) {
    return absl::InvalidArgumentError("key 'tokenizer.ggml.tokens' has too many tokens");
  }
  config.vocabulary = static_cast<int32_t>(tokens->count);
  ASYMSERVE_ASSIGN_OR_RETURN(const int32_t stated, keys.Size("vocab_size", config.vocabulary));
  if (stated != config.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat("key ", Printable(keys.Key("vocab_size")),
                                                   " is ", stated, ", but there are ",
                                                   config.vocabulary, " tokens"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelConfig> ModelConfigFromGguf(const Gguf& gguf) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Family family, FindFamily(gguf));
  const ArchitectureKeys keys(gguf, family.architecture);
  ASYMSERVE_RETURN_IF_ERROR(RefuseUnsupported(gguf, keys));

  ModelConfig config;
  config.architecture = std::string(family.architecture);
  if (gguf.Find("general.name") != nullptr) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view name, gguf.String("general.name"));
    config.name = std::string(name);
  }
  config.rope_style = family.rope_style;
  config.qkv_bias = family.qkv_bias || gguf.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.qk_norm = family.qk_norm;
  config.tied_output = gguf.FindTensor("output.weight") == nullptr;
  ASYMSERVE_ASSIGN_OR_RETURN(config.layers, keys.Size("block_count"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.width, keys.Size("embedding_length"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.feed_forward_width, keys.Size("feed_forward_length"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.context_length, keys.Size("context_length"));
  ASYMSERVE_ASSIGN_OR_RETURN(config.norm_epsilon, keys.Float("attention.layer_norm_rms_epsilon"));
  ASYMSERVE_RETURN_IF_ERROR(ReadAttention(keys, config));
  ASYMSERVE_RETURN_IF_ERROR(ReadRope(gguf, keys, config));
  ASYMSERVE_RETURN_IF_ERROR(ReadVocabularySize(gguf, keys, config));
  ASYMSERVE_RETURN_IF_ERROR(ValidateModelConfig(config));
  return config;
}

}  // namespace asymserve
