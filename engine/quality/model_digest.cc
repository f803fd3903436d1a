#include "engine/quality/model_digest.h"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {
namespace {

/// Shapes and constants that queries, keys and values depend on, as text.
std::string Describe(const ModelConfig& config) {
  const AttentionShape& attention = config.attention;
  const RopeScaling& scaling = config.rope_scaling;
  std::string text = absl::StrCat("asymserve model 1\nlayers ", config.layers, " width ",
                                  config.width, " heads ", attention.heads, " kv_heads ",
                                  attention.kv_heads, " head_size ", attention.head_size);
  absl::StrAppend(&text, "\nrope ", config.rope_base, " style ",
                  static_cast<int>(config.rope_style), " scaling ", static_cast<int>(scaling.kind),
                  " ", scaling.factor, " ", scaling.low_freq_factor, " ", scaling.high_freq_factor,
                  " ", scaling.original_context, " factors");
  for (const float factor : config.rope_factors) absl::StrAppend(&text, " ", factor);
  return text + "\n";
}

std::vector<std::string> TensorNames(const ModelConfig& config) {
  std::vector<const char*> suffixes = {"attn_norm.weight", "attn_q.weight",      "attn_k.weight",
                                       "attn_v.weight",    "attn_output.weight", "ffn_norm.weight"};
  if (config.qkv_bias) {
    suffixes.insert(suffixes.end(), {"attn_q.bias", "attn_k.bias", "attn_v.bias"});
  }
  if (config.qk_norm) suffixes.insert(suffixes.end(), {"attn_q_norm.weight", "attn_k_norm.weight"});
  std::vector<std::string> names = {"output_norm.weight"};
  for (int32_t layer = 0; layer < config.layers; ++layer) {
    for (const char* suffix : suffixes) names.push_back(absl::StrCat("blk.", layer, ".", suffix));
  }
  return names;
}

}  // namespace

absl::StatusOr<Sha256Digest> ModelDigest(const WeightFile& file) {
  Sha256 hash;
  hash.Update(Describe(file.config()));
  for (const std::string& name : TensorNames(file.config())) {
    ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource tensor, file.Find(name));
    hash.Update(
        absl::StrCat(name, " ", Info(tensor.dtype).name, " ", tensor.rows, " ", tensor.cols, "\n"));
    const int64_t bytes = tensor.rows * RowBytes(tensor.dtype, tensor.cols);
    hash.Update(std::span(tensor.data, static_cast<size_t>(bytes)));
    file.Discard(tensor);
  }
  return hash.Finish();
}

}  // namespace asymserve
