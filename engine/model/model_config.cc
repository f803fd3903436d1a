#include "engine/model/model_config.h"

#include <cmath>
#include <string_view>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

// Far above any model; products of two stay below 2^63, of three with a type's size too.
constexpr int32_t kMaxLayers = 4096;
constexpr int32_t kMaxWidth = 1 << 20;
constexpr int32_t kMaxVocabulary = 1 << 24;
constexpr int32_t kMaxContext = 1 << 24;
constexpr int32_t kMaxHeads = 1 << 14;

absl::Status CheckRange(std::string_view what, int64_t value, int64_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), " is ", value, ", allowed are 1 to ", most));
}

absl::Status CheckPositive(std::string_view what, float value, float most) {
  if (value > 0 && value <= most) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(
      absl::StrCat(std::string(what), " is ", value, ", need a positive number up to ", most));
}

absl::Status CheckAttention(const AttentionShape& shape) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the number of attention heads", shape.heads, kMaxHeads));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the number of key-value heads", shape.kv_heads, kMaxHeads));
  if (shape.heads % shape.kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        shape.heads, " attention heads are no multiple of ", shape.kv_heads, " key-value heads"));
  }
  if (shape.head_size < 8 || shape.head_size > 256 || shape.head_size % 8 != 0) {
    return absl::UnimplementedError(absl::StrCat("the head size is ", shape.head_size,
                                                 ", supported are multiples of 8 from 8 to 256"));
  }
  return absl::OkStatus();
}

absl::Status CheckRope(const ModelConfig& config) {
  ASYMSERVE_RETURN_IF_ERROR(CheckPositive("the rope base", config.rope_base, 1e12f));
  const RopeScaling& scaling = config.rope_scaling;
  if (scaling.kind != RopeScaling::Kind::kNone) {
    ASYMSERVE_RETURN_IF_ERROR(CheckPositive("the rope scaling factor", scaling.factor, 1e6f));
  }
  if (scaling.kind == RopeScaling::Kind::kLlama3) {
    ASYMSERVE_RETURN_IF_ERROR(
        CheckPositive("the rope scaling low_freq_factor", scaling.low_freq_factor, 1e6f));
    ASYMSERVE_RETURN_IF_ERROR(
        CheckPositive("the rope scaling high_freq_factor", scaling.high_freq_factor, 1e6f));
    ASYMSERVE_RETURN_IF_ERROR(
        CheckRange("the rope scaling original context", scaling.original_context, kMaxContext));
    if (scaling.low_freq_factor >= scaling.high_freq_factor) {
      return absl::InvalidArgumentError(
          absl::StrCat("rope scaling low_freq_factor ", scaling.low_freq_factor,
                       " is not below high_freq_factor ", scaling.high_freq_factor));
    }
  }
  const auto pairs = static_cast<size_t>(config.attention.head_size / 2);
  if (!config.rope_factors.empty() && config.rope_factors.size() != pairs) {
    return absl::InvalidArgumentError(
        absl::StrCat(config.rope_factors.size(), " rope factors for ", pairs, " rotary pairs"));
  }
  for (const float factor : config.rope_factors) {
    ASYMSERVE_RETURN_IF_ERROR(CheckPositive("a rope factor", factor, 1e6f));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateModelConfig(const ModelConfig& config) {
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the number of layers", config.layers, kMaxLayers));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the width", config.width, kMaxWidth));
  ASYMSERVE_RETURN_IF_ERROR(
      CheckRange("the feed-forward width", config.feed_forward_width, kMaxWidth));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the vocabulary", config.vocabulary, kMaxVocabulary));
  ASYMSERVE_RETURN_IF_ERROR(CheckRange("the context length", config.context_length, kMaxContext));
  ASYMSERVE_RETURN_IF_ERROR(CheckPositive("the norm epsilon", config.norm_epsilon, 1.0f));
  ASYMSERVE_RETURN_IF_ERROR(CheckAttention(config.attention));
  return CheckRope(config);
}

}  // namespace asymserve
