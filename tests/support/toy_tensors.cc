#include "tests/support/toy_tensors.h"

#include <cmath>
#include <utility>

#include "engine/base/check.h"
#include "tests/support/random_weights.h"

namespace asymserve::testing {
namespace {

class Builder {
 public:
  explicit Builder(const ToyModel& model) : model_(model) {}

  void Matrix(const std::string& gguf, const std::string& hf, int64_t rows, int64_t cols,
              DType dtype, float sigma, int32_t rotary_heads = 0) {
    if (cols % Info(dtype).block_elements != 0) dtype = DType::kF16;
    tensors.push_back({gguf, hf, false, rows, cols, dtype, 0, sigma, rotary_heads});
  }

  void Vector(const std::string& gguf, const std::string& hf, int64_t elements, float mean,
              int32_t rotary_heads = 0) {
    tensors.push_back({gguf, hf, true, 1, elements, model_.vector_dtype, mean, 0.2f, rotary_heads});
  }

  void Layer(int32_t index) {
    const std::string gguf = "blk." + std::to_string(index) + ".";
    const std::string hf = "model.layers." + std::to_string(index) + ".";
    const int64_t q = int64_t{model_.heads} * model_.head_size;
    const int64_t kv = int64_t{model_.kv_heads} * model_.head_size;
    const auto project = [&](const char* to, const char* from, int64_t rows, int64_t cols,
                             int32_t rotary_heads = 0) {
      Matrix(gguf + to + ".weight", hf + from + ".weight", rows, cols, model_.dtype,
             1 / std::sqrt(static_cast<float>(cols)), rotary_heads);
    };
    Vector(gguf + "attn_norm.weight", hf + "input_layernorm.weight", model_.width, 1);
    project("attn_q", "self_attn.q_proj", q, model_.width, model_.heads);
    project("attn_k", "self_attn.k_proj", kv, model_.width, model_.kv_heads);
    project("attn_v", "self_attn.v_proj", kv, model_.width);
    project("attn_output", "self_attn.o_proj", model_.width, q);
    if (model_.architecture == "qwen2") {
      Vector(gguf + "attn_q.bias", hf + "self_attn.q_proj.bias", q, 0, model_.heads);
      Vector(gguf + "attn_k.bias", hf + "self_attn.k_proj.bias", kv, 0, model_.kv_heads);
      Vector(gguf + "attn_v.bias", hf + "self_attn.v_proj.bias", kv, 0);
    }
    if (model_.architecture == "qwen3") {
      Vector(gguf + "attn_q_norm.weight", hf + "self_attn.q_norm.weight", model_.head_size, 1);
      Vector(gguf + "attn_k_norm.weight", hf + "self_attn.k_norm.weight", model_.head_size, 1);
    }
    Vector(gguf + "ffn_norm.weight", hf + "post_attention_layernorm.weight", model_.width, 1);
    project("ffn_gate", "mlp.gate_proj", model_.feed_forward_width, model_.width);
    project("ffn_up", "mlp.up_proj", model_.feed_forward_width, model_.width);
    project("ffn_down", "mlp.down_proj", model_.width, model_.feed_forward_width);
  }

  std::vector<ToyTensor> tensors;

 private:
  const ToyModel& model_;
};

}  // namespace

std::vector<ToyTensor> ToyTensors(const ToyModel& model) {
  constexpr float kEmbeddingSigma = 0.5f;
  Builder builder(model);
  builder.Matrix("token_embd.weight", "model.embed_tokens.weight", model.vocabulary, model.width,
                 model.embedding_dtype, kEmbeddingSigma);
  for (int32_t layer = 0; layer < model.layers; ++layer) builder.Layer(layer);
  builder.Vector("output_norm.weight", "model.norm.weight", model.width, 1);
  if (!model.tied_output) {
    builder.Matrix("output.weight", "lm_head.weight", model.vocabulary, model.width,
                   model.embedding_dtype, kEmbeddingSigma);
  }
  return std::move(builder.tensors);
}

std::string ToyTensorBytes(const ToyModel& model, const ToyTensor& tensor, bool interleave) {
  // A bias has its channels in one row: generate it channel by channel to permute it like a matrix.
  const bool by_channel = tensor.is_vector && tensor.rotary_heads > 0;
  const int64_t rows = by_channel ? tensor.cols : tensor.rows;
  const int64_t cols = by_channel ? 1 : tensor.cols;
  const int64_t head_size = tensor.rotary_heads > 0 ? rows / tensor.rotary_heads : 1;
  ASYMSERVE_CHECK(tensor.rotary_heads == 0 || head_size % 2 == 0);
  std::string bytes;
  for (int64_t row = 0; row < rows; ++row) {
    int64_t source = row;
    if (interleave && tensor.rotary_heads > 0) {
      const int64_t channel = row % head_size;
      source = row - channel + channel % 2 * (head_size / 2) + channel / 2;
    }
    bytes += RandomRow(tensor.dtype, cols, tensor.mean, tensor.sigma, model.seed, tensor.gguf_name,
                       source);
  }
  return bytes;
}

}  // namespace asymserve::testing
