#include "engine/model/llama.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/float16.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

// Norms and biases are F32 in GGUF, 16 bit in safetensors.
absl::StatusOr<std::vector<float>> ReadFloats(const WeightSource& source, std::string_view name) {
  const size_t count = static_cast<size_t>(source.rows * source.cols);
  std::vector<float> values(count);
  if (source.dtype == DType::kF32) {
    std::copy_n(source.data, count * sizeof(float), reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  if (source.dtype != DType::kF16 && source.dtype != DType::kBF16) {
    return absl::InvalidArgumentError(absl::StrCat("tensor ", std::string(name), " is ",
                                                   Info(source.dtype).name,
                                                   ", expected F32, F16 or BF16"));
  }
  for (size_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::copy_n(source.data + 2 * i, 2, reinterpret_cast<std::byte*>(&bits));
    values[i] = source.dtype == DType::kF16 ? HalfToFloat(bits) : BrainToFloat(bits);
  }
  return values;
}

/// Of no other step of this process: several models may share a backend.
uint64_t NewStepNumber() {
  static std::atomic<uint64_t> steps = 0;
  return ++steps;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LlamaModel>> LlamaModel::Load(const WeightFile& file,
                                                             Backend& backend,
                                                             const LlamaOptions& options) {
  std::unique_ptr<LlamaModel> model(new LlamaModel(file.config(), backend));
  model->max_positions_ = options.max_positions > 0
                              ? std::min(options.max_positions, file.config().context_length)
                              : file.config().context_length;
  ASYMSERVE_RETURN_IF_ERROR(model->LoadWeights(file, options));
  ASYMSERVE_RETURN_IF_ERROR(model->AllocateActivations(options));
  return model;
}

absl::StatusOr<std::unique_ptr<Weight>> LlamaModel::Pack(const WeightFile& file,
                                                         std::span<const std::string> names) {
  std::vector<WeightSource> parts;
  for (const std::string& name : names) {
    ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource source, file.Find(name));
    parts.push_back(source);
  }
  auto weight = backend_.PackWeight(parts);
  if (!weight.ok()) return Annotate(weight.status(), absl::StrCat("tensor ", names.front()));
  for (const WeightSource& source : parts) file.Discard(source);
  weight_bytes_ += (*weight)->bytes();
  return weight;
}

absl::StatusOr<TensorView> LlamaModel::UploadVector(const WeightFile& file, std::string_view name) {
  ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource source, file.Find(name));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<float> values, ReadFloats(source, name));
  return backend_.Upload(values);
}

absl::Status LlamaModel::LoadWeights(const WeightFile& file, const LlamaOptions& options) {
  const std::string embedding[] = {"token_embd.weight"};
  ASYMSERVE_ASSIGN_OR_RETURN(embedding_, Pack(file, embedding));
  if (!config_.tied_output) {
    const std::string output[] = {"output.weight"};
    ASYMSERVE_ASSIGN_OR_RETURN(output_, Pack(file, output));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(output_norm_, UploadVector(file, "output_norm.weight"));
  const std::vector<float> rope =
      options.counts_only ? std::vector<float>(static_cast<size_t>(max_positions_) *
                                               static_cast<size_t>(config_.attention.head_size))
                          : RopeTable(config_, max_positions_);
  ASYMSERVE_ASSIGN_OR_RETURN(rope_, backend_.Upload(rope, max_positions_));
  for (int32_t i = 0; i < config_.layers; ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(Layer layer, LoadLayer(file, i));
    layers_.push_back(std::move(layer));
  }
  return absl::OkStatus();
}

absl::StatusOr<LlamaModel::Layer> LlamaModel::LoadLayer(const WeightFile& file, int32_t index) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  const auto name = [&](const char* suffix) { return absl::StrCat(prefix, suffix); };
  Layer layer;
  ASYMSERVE_ASSIGN_OR_RETURN(layer.attention_norm, UploadVector(file, name("attn_norm.weight")));
  ASYMSERVE_ASSIGN_OR_RETURN(layer.feed_forward_norm, UploadVector(file, name("ffn_norm.weight")));
  const std::string qkv[] = {name("attn_q.weight"), name("attn_k.weight"), name("attn_v.weight")};
  ASYMSERVE_ASSIGN_OR_RETURN(layer.qkv, Pack(file, qkv));
  const std::string attention_output[] = {name("attn_output.weight")};
  ASYMSERVE_ASSIGN_OR_RETURN(layer.attention_output, Pack(file, attention_output));
  const std::string gate_up[] = {name("ffn_gate.weight"), name("ffn_up.weight")};
  ASYMSERVE_ASSIGN_OR_RETURN(layer.gate_up, Pack(file, gate_up));
  const std::string down[] = {name("ffn_down.weight")};
  ASYMSERVE_ASSIGN_OR_RETURN(layer.down, Pack(file, down));

  QkvParams& params = layer.qkv_params;
  params.shape = config_.attention;
  params.norm_epsilon = config_.norm_epsilon;
  params.rope = rope_;
  params.rope_style = config_.rope_style;
  if (config_.qkv_bias) {
    std::vector<float> bias;
    for (const char* suffix : {"attn_q.bias", "attn_k.bias", "attn_v.bias"}) {
      ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource source, file.Find(name(suffix)));
      ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<float> part, ReadFloats(source, name(suffix)));
      bias.insert(bias.end(), part.begin(), part.end());
    }
    ASYMSERVE_ASSIGN_OR_RETURN(params.bias, backend_.Upload(bias));
  }
  if (config_.qk_norm) {
    ASYMSERVE_ASSIGN_OR_RETURN(params.q_norm, UploadVector(file, name("attn_q_norm.weight")));
    ASYMSERVE_ASSIGN_OR_RETURN(params.k_norm, UploadVector(file, name("attn_k_norm.weight")));
  }
  return layer;
}

absl::Status LlamaModel::AllocateActivations(const LlamaOptions& options) {
  const AttentionShape& shape = config_.attention;
  const int64_t tokens = options.max_step_tokens;
  const int64_t query_width = int64_t{shape.heads} * shape.head_size;
  const int64_t qkv_width = query_width + int64_t{2} * shape.kv_heads * shape.head_size;
  const struct {
    TensorView* view;
    int64_t rows, cols;
  } buffers[] = {
      {&residual_, tokens, config_.width},
      {&normed_, tokens, config_.width},
      {&qkv_, tokens, qkv_width},
      {&attention_, tokens, query_width},
      {&delta_, tokens, config_.width},
      {&gate_up_, tokens, int64_t{2} * config_.feed_forward_width},
      {&activated_, tokens, config_.feed_forward_width},
      {&selected_, options.max_logit_rows, config_.width},
  };
  for (const auto& buffer : buffers) {
    ASYMSERVE_ASSIGN_OR_RETURN(*buffer.view, backend_.AllocateActivation(buffer.rows, buffer.cols));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(logits_,
                             backend_.AllocateResult(options.max_logit_rows, config_.vocabulary));
  ASYMSERVE_ASSIGN_OR_RETURN(draw_limits_,
                             backend_.ReserveDraws(options.max_logit_rows, config_.vocabulary));
  const int64_t widest =
      std::max<int64_t>({config_.width, query_width, config_.feed_forward_width});
  return backend_.Reserve(tokens, widest);
}

absl::Status LlamaModel::RunLayer(const KvStep& step, int32_t index, int64_t tokens) {
  const Layer& layer = layers_[static_cast<size_t>(index)];
  const TensorView normed = normed_.FirstRows(tokens);
  const TensorView residual = residual_.FirstRows(tokens);
  const TensorView qkv = qkv_.FirstRows(tokens);
  const TensorView attention = attention_.FirstRows(tokens);
  const TensorView delta = delta_.FirstRows(tokens);
  const TensorView gate_up = gate_up_.FirstRows(tokens);
  const TensorView activated = activated_.FirstRows(tokens);
  const float epsilon = config_.norm_epsilon;

  ASYMSERVE_RETURN_IF_ERROR(backend_.MatMul(qkv, normed, *layer.qkv));
  ASYMSERVE_RETURN_IF_ERROR(backend_.PrepareQkv(qkv, layer.qkv_params, step.positions));
  ASYMSERVE_RETURN_IF_ERROR(backend_.KvWrite(step, index, qkv));
  ASYMSERVE_RETURN_IF_ERROR(backend_.Attention(step, index, config_.attention, attention, qkv));
  ASYMSERVE_RETURN_IF_ERROR(backend_.MatMul(delta, attention, *layer.attention_output));
  ASYMSERVE_RETURN_IF_ERROR(
      backend_.AddRmsNorm(normed, residual, delta, layer.feed_forward_norm, epsilon));
  ASYMSERVE_RETURN_IF_ERROR(backend_.MatMul(gate_up, normed, *layer.gate_up));
  ASYMSERVE_RETURN_IF_ERROR(backend_.SwiGlu(activated, gate_up));
  ASYMSERVE_RETURN_IF_ERROR(backend_.MatMul(delta, activated, *layer.down));
  const TensorView next_norm = index + 1 < config_.layers
                                   ? layers_[static_cast<size_t>(index) + 1].attention_norm
                                   : output_norm_;
  return backend_.AddRmsNorm(normed, residual, delta, next_norm, epsilon);
}

absl::StatusOr<TensorView> LlamaModel::Forward(const Batch& batch) {
  const int64_t tokens = static_cast<int64_t>(batch.tokens.size());
  const int64_t rows = static_cast<int64_t>(batch.logit_rows.size());
  if (tokens < 1 || tokens > residual_.rows() || rows > logits_.rows()) {
    return absl::InternalError(absl::StrCat("step of ", tokens, " tokens and ", rows,
                                            " logit rows, room for ", residual_.rows(), " and ",
                                            logits_.rows()));
  }
  if (!batch.seals.empty()) ASYMSERVE_RETURN_IF_ERROR(backend_.KvSeal(batch.seals));
  const TensorView residual = residual_.FirstRows(tokens);
  const TensorView normed = normed_.FirstRows(tokens);
  ASYMSERVE_RETURN_IF_ERROR(backend_.Embed(residual, *embedding_, batch.tokens));
  ASYMSERVE_RETURN_IF_ERROR(
      backend_.RmsNorm(normed, residual, layers_.front().attention_norm, config_.norm_epsilon));
  KvStep step = batch.kv;
  step.number = NewStepNumber();
  for (int32_t i = 0; i < config_.layers; ++i) {
    ASYMSERVE_RETURN_IF_ERROR(RunLayer(step, i, tokens));
  }
  const TensorView logits = logits_.FirstRows(rows);
  if (rows == 0) return TensorView();
  const TensorView selected = selected_.FirstRows(rows);
  ASYMSERVE_RETURN_IF_ERROR(backend_.GatherRows(selected, normed, batch.logit_rows));
  const Weight& output = config_.tied_output ? *embedding_ : *output_;
  ASYMSERVE_RETURN_IF_ERROR(backend_.MatMul(logits, selected, output));
  if (batch.draws.draws.empty()) return backend_.Download(logits);
  return backend_.DrawTokens(logits, batch.draws, batch.drawn);
}

}  // namespace asymserve
