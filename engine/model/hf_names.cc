#include "engine/model/hf_names.h"

#include <algorithm>
#include <array>

namespace asymserve {
namespace {

struct Pair {
  std::string_view hf;
  std::string_view gguf;
};

constexpr std::array<Pair, 3> kGlobal = {{
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
}};

constexpr std::array<Pair, 14> kOfLayer = {{
    {"input_layernorm.weight", "attn_norm.weight"},
    {"self_attn.q_proj.weight", "attn_q.weight"},
    {"self_attn.k_proj.weight", "attn_k.weight"},
    {"self_attn.v_proj.weight", "attn_v.weight"},
    {"self_attn.o_proj.weight", "attn_output.weight"},
    {"self_attn.q_proj.bias", "attn_q.bias"},
    {"self_attn.k_proj.bias", "attn_k.bias"},
    {"self_attn.v_proj.bias", "attn_v.bias"},
    {"self_attn.q_norm.weight", "attn_q_norm.weight"},
    {"self_attn.k_norm.weight", "attn_k_norm.weight"},
    {"post_attention_layernorm.weight", "ffn_norm.weight"},
    {"mlp.gate_proj.weight", "ffn_gate.weight"},
    {"mlp.up_proj.weight", "ffn_up.weight"},
    {"mlp.down_proj.weight", "ffn_down.weight"},
}};

template <size_t N>
std::optional<std::string_view> Lookup(const std::array<Pair, N>& pairs, std::string_view name) {
  for (const Pair& pair : pairs) {
    if (pair.hf == name) return pair.gguf;
  }
  return std::nullopt;
}

bool IsDigit(char c) {
  return c >= '0' && c <= '9';
}

}  // namespace

std::optional<std::string> GgufNameOfHf(std::string_view name) {
  if (const auto global = Lookup(kGlobal, name)) return std::string(*global);
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  const size_t digits = std::min(name.find('.'), name.size());
  const std::string_view layer = name.substr(0, digits);
  if (layer.empty() || !std::all_of(layer.begin(), layer.end(), IsDigit)) return std::nullopt;
  if (digits == name.size()) return std::nullopt;
  const auto suffix = Lookup(kOfLayer, name.substr(digits + 1));
  if (!suffix) return std::nullopt;
  return "blk." + std::string(layer) + "." + std::string(*suffix);
}

}  // namespace asymserve
