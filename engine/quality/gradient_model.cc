#include "engine/quality/gradient_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/dequantize.h"
#include "engine/base/philox.h"
#include "engine/base/status.h"
#include "engine/kv/codec.h"
#include "engine/kv/item_name.h"
#include "engine/model/llama.h"
#include "engine/quality/fast_exp.h"

namespace asymserve {
namespace {

constexpr int64_t kPage = kKvPageTokens;

/// out = x / rms(x) * weight.
void Norm(const float* x, std::span<const float> weight, float epsilon, float* out) {
  double sum = 0;
  for (size_t c = 0; c < weight.size(); ++c) {
    sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
  }
  const auto scale = static_cast<float>(
      1 / std::sqrt(sum / static_cast<double>(weight.size()) + static_cast<double>(epsilon)));
  for (size_t c = 0; c < weight.size(); ++c) out[c] = x[c] * scale * weight[c];
}

/// The gradient of Norm at x: to = or += it.
void BackNorm(const float* x, std::span<const float> weight, float epsilon, const float* gradient,
              bool add, float* to) {
  double sum = 0;
  double dot = 0;
  for (size_t c = 0; c < weight.size(); ++c) {
    sum += static_cast<double>(x[c]) * static_cast<double>(x[c]);
    dot += static_cast<double>(gradient[c] * weight[c]) * static_cast<double>(x[c]);
  }
  const auto count = static_cast<double>(weight.size());
  const double inverse = 1 / std::sqrt(sum / count + static_cast<double>(epsilon));
  const auto scale = static_cast<float>(inverse);
  const auto share = static_cast<float>(inverse * inverse * inverse * dot / count);
  for (size_t c = 0; c < weight.size(); ++c) {
    const float value = gradient[c] * weight[c] * scale - x[c] * share;
    to[c] = add ? to[c] + value : value;
  }
}

float Sigmoid(float x) {
  const float e = FastExp(-std::fabs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/// Turns logits into probabilities; the logarithm of the sum.
double Softmax(std::span<float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  for (float& value : logits) value = FastExp(value - top);
  double sum = 0;
  for (size_t begin = 0; begin < logits.size(); begin += 1024) {
    float part = 0;
    for (size_t i = begin; i < std::min(begin + 1024, logits.size()); ++i) part += logits[i];
    sum += static_cast<double>(part);
  }
  const auto inverse = static_cast<float>(1 / sum);
  for (float& value : logits) value *= inverse;
  return static_cast<double>(top) + std::log(sum);
}

/// sqrt(p) e - p (sqrt(p) . e) for random signs e: its covariance is that of the one-hot choice.
void SampleChoice(std::span<float> p, float weight, uint64_t seed, uint64_t position) {
  float dot = 0;
  std::vector<float> signs(p.size());
  for (size_t i = 0; i < p.size(); i += 128) {
    const auto words =
        Philox({static_cast<uint32_t>(i), static_cast<uint32_t>(position), 7, 0}, seed);
    for (size_t j = i; j < std::min(i + 128, p.size()); ++j) {
      const bool negative = (words[(j - i) / 32] >> (j % 32) & 1u) != 0;
      signs[j] = negative ? -std::sqrt(p[j]) : std::sqrt(p[j]);
      dot += signs[j];
    }
  }
  const float scale = std::sqrt(weight);
  for (size_t i = 0; i < p.size(); ++i) p[i] = scale * (signs[i] - p[i] * dot);
}

}  // namespace

struct GradientModel::Layer {
  std::vector<float> attention_norm, feed_forward_norm, bias, q_norm, k_norm;
  std::vector<float> qkv;      // [(H + 2G) * D][C]
  std::vector<float> output;   // [C][H * D]
  std::vector<float> gate_up;  // [2F][C]
  std::vector<float> down;     // [C][F]
};

// ---- Weights ----------------------------------------------------------------------------------

absl::StatusOr<std::vector<float>> GradientModel::Floats(const std::string& name) const {
  ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource source, file_.Find(name));
  std::vector<float> values(static_cast<size_t>(source.rows * source.cols));
  constexpr int64_t kRows = 64;
  const int64_t row_bytes = RowBytes(source.dtype, source.cols);
  pool_.ParallelFor(static_cast<int>((source.rows + kRows - 1) / kRows), [&](int chunk, int) {
    for (int64_t row = chunk * kRows; row < std::min((chunk + 1) * kRows, source.rows); ++row) {
      const std::vector<float> one =
          DequantizeRow(source.dtype, source.data + row * row_bytes, source.cols);
      std::copy(one.begin(), one.end(), values.begin() + row * source.cols);
    }
  });
  return values;
}

absl::StatusOr<std::unique_ptr<GradientModel>> GradientModel::Create(const WeightFile& file,
                                                                     ThreadPool& pool) {
  std::unique_ptr<GradientModel> model(new GradientModel(file, pool));
  const ModelConfig& config = file.config();
  ASYMSERVE_ASSIGN_OR_RETURN(model->output_norm_, model->Floats("output_norm.weight"));
  ASYMSERVE_ASSIGN_OR_RETURN(
      const std::vector<float> head,
      model->Floats(config.tied_output ? "token_embd.weight" : "output.weight"));
  model->head_.PackTransposed(head.data(), config.width, config.vocabulary, config.width);
  model->head_back_.Pack(head.data(), config.vocabulary, config.width, config.width);
  return model;
}

absl::StatusOr<GradientModel::Layer> GradientModel::LoadLayer(int32_t index) const {
  const ModelConfig& config = file_.config();
  const auto load = [&](std::initializer_list<const char*> names,
                        std::vector<float>& values) -> absl::Status {
    for (const char* name : names) {
      ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<float> part,
                                 Floats(absl::StrCat("blk.", index, ".", name)));
      values.insert(values.end(), part.begin(), part.end());
    }
    return absl::OkStatus();
  };
  Layer layer;
  ASYMSERVE_RETURN_IF_ERROR(load({"attn_norm.weight"}, layer.attention_norm));
  ASYMSERVE_RETURN_IF_ERROR(load({"ffn_norm.weight"}, layer.feed_forward_norm));
  ASYMSERVE_RETURN_IF_ERROR(load({"attn_q.weight", "attn_k.weight", "attn_v.weight"}, layer.qkv));
  ASYMSERVE_RETURN_IF_ERROR(load({"attn_output.weight"}, layer.output));
  ASYMSERVE_RETURN_IF_ERROR(load({"ffn_gate.weight", "ffn_up.weight"}, layer.gate_up));
  ASYMSERVE_RETURN_IF_ERROR(load({"ffn_down.weight"}, layer.down));
  if (config.qkv_bias) {
    ASYMSERVE_RETURN_IF_ERROR(load({"attn_q.bias", "attn_k.bias", "attn_v.bias"}, layer.bias));
  }
  if (config.qk_norm) {
    ASYMSERVE_RETURN_IF_ERROR(load({"attn_q_norm.weight"}, layer.q_norm));
    ASYMSERVE_RETURN_IF_ERROR(load({"attn_k_norm.weight"}, layer.k_norm));
  }
  return layer;
}

template <typename Body>
void GradientModel::ForRows(Body&& body) const {
  pool_.ParallelFor(static_cast<int>(tokens_.size() / kPage),
                    [&](int chunk, int) { body(int64_t{chunk} * kPage); });
}

// ---- Forward ----------------------------------------------------------------------------------

absl::Status GradientModel::Embed(std::span<const int32_t> tokens) {
  const ModelConfig& config = file_.config();
  ASYMSERVE_ASSIGN_OR_RETURN(const WeightSource table, file_.Find("token_embd.weight"));
  tokens_.assign(tokens.begin(), tokens.end());
  stream_.clear();
  for (const int32_t token : tokens) {
    const std::vector<float> row = DequantizeRow(
        table.dtype, table.data + token * RowBytes(table.dtype, table.cols), table.cols);
    stream_.insert(stream_.end(), row.begin(), row.end());
  }
  const size_t needed = tokens.size() * static_cast<size_t>(config.attention.head_size);
  if (rope_.size() < needed) rope_ = RopeTable(config, static_cast<int32_t>(tokens.size()));
  return absl::OkStatus();
}

void GradientModel::Turn(float* head, int64_t position, bool back) const {
  const ModelConfig& config = file_.config();
  const int32_t pairs = config.attention.head_size / 2;
  const float* row = rope_.data() + position * config.attention.head_size;
  const bool interleaved = config.rope_style == RopeStyle::kInterleaved;
  const int32_t step = interleaved ? 2 : 1;
  const int32_t distance = interleaved ? 1 : pairs;
  for (int32_t pair = 0; pair < pairs; ++pair) {
    const float cosine = row[pair];
    const float sine = back ? -row[pairs + pair] : row[pairs + pair];
    const float x = head[step * pair];
    const float y = head[step * pair + distance];
    head[step * pair] = x * cosine - y * sine;
    head[step * pair + distance] = x * sine + y * cosine;
  }
}

void GradientModel::PrepareHeads(const Layer& layer, float* qkv, int64_t position) const {
  const AttentionShape& shape = file_.config().attention;
  for (size_t i = 0; i < layer.bias.size(); ++i) qkv[i] += layer.bias[i];
  for (int32_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
    float* x = qkv + int64_t{head} * shape.head_size;
    const std::vector<float>& norm = head < shape.heads ? layer.q_norm : layer.k_norm;
    if (!norm.empty()) Norm(x, norm, file_.config().norm_epsilon, x);
    Turn(x, position, /*back=*/false);
  }
}

/// Turns the gradient of prepared q, k, v into that of `raw`, what PrepareHeads was given.
void GradientModel::UnprepareHeads(const Layer& layer, const float* raw, float* gradient,
                                   int64_t position) const {
  const AttentionShape& shape = file_.config().attention;
  std::vector<float> biased;
  for (int32_t head = 0; head < shape.heads + shape.kv_heads; ++head) {
    const int64_t at = int64_t{head} * shape.head_size;
    float* x = gradient + at;
    Turn(x, position, /*back=*/true);
    const std::vector<float>& norm = head < shape.heads ? layer.q_norm : layer.k_norm;
    if (norm.empty()) continue;
    biased.assign(raw + at, raw + at + shape.head_size);
    for (size_t i = 0; i < biased.size() && !layer.bias.empty(); ++i) {
      biased[i] += layer.bias[static_cast<size_t>(at) + i];
    }
    BackNorm(biased.data(), norm, file_.config().norm_epsilon, x, /*add=*/false, x);
  }
}

void GradientModel::SealPage(const PlaneCodes& codes, int32_t layer, int32_t head, int64_t page,
                             Saved& saved) const {
  const AttentionShape& shape = file_.config().attention;
  const KvShape kv_shape = {file_.config().layers, shape.kv_heads, shape.head_size};
  const int64_t width = shape.head_size;
  const int64_t row_width = shape.kv_heads * width;
  const int64_t frame = page * kPage / scheme_.frame_tokens * scheme_.frame_tokens;
  std::vector<float> x(static_cast<size_t>(kPage * width));
  std::vector<uint8_t> base(static_cast<size_t>(PadKvBlock(kPage * (width + 2))));
  std::vector<uint8_t> refinement(base.size());
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const bool key = tensor == KvTensor::kKey;
    auto& tiers = key ? saved.rows.keys : saved.rows.values;
    const KvItem& item = scheme_.item(kv_shape, layer, tensor, head);
    const PlaneCode& code = codes[KvItemIndex(kv_shape, layer, tensor, head)];
    const auto at = [&](std::vector<float>& rows, int64_t t) {
      return rows.data() + (page * kPage + t) * row_width + head * width;
    };
    for (int64_t t = 0; t < kPage; ++t) {
      std::copy_n(at(tiers[0], t), width, x.data() + t * width);
      if (key) Turn(x.data() + t * width, frame, /*back=*/true);
    }
    const bool refined = item.codec == KvCodec::kPlanes && item.fresh_planes > item.base_planes;
    EncodeBlock(item, tensor, shape.head_size, &code, x.data(), base.data(), refinement.data());
    for (const KvTier tier : {KvTier::kFresh, KvTier::kAged}) {
      const bool fresh = tier == KvTier::kFresh && refined;
      DecodeBlock(item, tensor, shape.head_size, &code, base.data(),
                  fresh ? refinement.data() : nullptr, x.data());
      for (int64_t t = 0; t < kPage; ++t) {
        if (key) Turn(x.data() + t * width, frame, /*back=*/false);
        std::copy_n(x.data() + t * width, width, at(tiers[static_cast<size_t>(tier)], t));
      }
    }
  }
}

void GradientModel::SealRows(const PlaneCodes* codes, int32_t index, Saved& saved) const {
  const AttentionShape& shape = file_.config().attention;
  for (auto* tiers : {&saved.rows.keys, &saved.rows.values}) {
    (*tiers)[1] = (*tiers)[0];
    (*tiers)[2] = (*tiers)[0];
  }
  if (codes == nullptr || !scheme_.seals()) return;
  const auto pages = static_cast<int>(tokens_.size() / kPage);
  pool_.ParallelFor(pages * shape.kv_heads, [&](int chunk, int) {
    SealPage(*codes, index, chunk % shape.kv_heads, chunk / shape.kv_heads, saved);
  });
}

void GradientModel::RunAttention(const Layer& layer, const PlaneCodes* codes, int32_t index,
                                 Saved& saved) {
  const ModelConfig& config = file_.config();
  const AttentionShape& shape = config.attention;
  const auto tokens = static_cast<int64_t>(tokens_.size());
  const int64_t width = config.width;
  const int64_t q_width = int64_t{shape.heads} * shape.head_size;
  const int64_t row_width = int64_t{shape.kv_heads} * shape.head_size;
  const int64_t qkv_width = q_width + 2 * row_width;
  PackedMatrix qkv, output;
  qkv.PackTransposed(layer.qkv.data(), width, qkv_width, width);
  output.PackTransposed(layer.output.data(), q_width, width, q_width);
  saved.input = stream_;
  saved.qkv.resize(static_cast<size_t>(tokens * qkv_width));
  saved.rows.keys[0].resize(static_cast<size_t>(tokens * row_width));
  saved.rows.values[0].resize(static_cast<size_t>(tokens * row_width));
  saved.attention.resize(static_cast<size_t>(tokens * q_width));
  saved.log_sums.resize(static_cast<size_t>(tokens * shape.heads));
  ForRows([&](int64_t first) {
    std::vector<float> normed(static_cast<size_t>(kPage * width));
    for (int64_t t = 0; t < kPage; ++t) {
      Norm(stream_.data() + (first + t) * width, layer.attention_norm, config.norm_epsilon,
           normed.data() + t * width);
    }
    Multiply(normed.data(), kPage, width, qkv, /*add=*/false, saved.qkv.data() + first * qkv_width,
             qkv_width);
    for (int64_t t = first; t < first + kPage; ++t) {
      float* row = saved.qkv.data() + t * qkv_width;
      PrepareHeads(layer, row, t);
      std::copy_n(row + q_width, row_width, saved.rows.keys[0].data() + t * row_width);
      std::copy_n(row + q_width + row_width, row_width,
                  saved.rows.values[0].data() + t * row_width);
    }
  });
  SealRows(codes, index, saved);
  GradientAttention(shape, scheme_, pool_)
      .Forward(saved.qkv.data(), qkv_width, saved.rows, tokens, saved.attention.data(),
               saved.log_sums.data());
  ForRows([&](int64_t first) {
    Multiply(saved.attention.data() + first * q_width, kPage, q_width, output, /*add=*/true,
             stream_.data() + first * width, width);
  });
  saved.middle = stream_;
}

void GradientModel::RunFeedForward(const Layer& layer, const Saved& saved) {
  const ModelConfig& config = file_.config();
  const int64_t width = config.width;
  const int64_t inner = config.feed_forward_width;
  PackedMatrix gate_up, down;
  gate_up.PackTransposed(layer.gate_up.data(), width, 2 * inner, width);
  down.PackTransposed(layer.down.data(), inner, width, inner);
  ForRows([&](int64_t first) {
    std::vector<float> normed(static_cast<size_t>(kPage * width));
    std::vector<float> both(static_cast<size_t>(kPage * 2 * inner));
    for (int64_t t = 0; t < kPage; ++t) {
      Norm(saved.middle.data() + (first + t) * width, layer.feed_forward_norm, config.norm_epsilon,
           normed.data() + t * width);
    }
    Multiply(normed.data(), kPage, width, gate_up, /*add=*/false, both.data(), 2 * inner);
    for (int64_t t = 0; t < kPage; ++t) {
      float* gate = both.data() + t * 2 * inner;
      for (int64_t i = 0; i < inner; ++i) gate[i] = gate[i] * Sigmoid(gate[i]) * gate[inner + i];
    }
    Multiply(both.data(), kPage, 2 * inner, down, /*add=*/true, stream_.data() + first * width,
             width);
  });
}

absl::Status GradientModel::Forward(std::span<const int32_t> tokens, const KvScheme& scheme,
                                    const PlaneCodes* codes) {
  const ModelConfig& config = file_.config();
  if (tokens.empty() || tokens.size() % kPage != 0) {
    return absl::InternalError(
        absl::StrCat("gradients of ", tokens.size(), " tokens, no multiple of ", kPage));
  }
  scheme_ = scheme;
  ASYMSERVE_RETURN_IF_ERROR(Embed(tokens));
  saved_.resize(static_cast<size_t>(config.layers));
  for (int32_t index = 0; index < config.layers; ++index) {
    ASYMSERVE_ASSIGN_OR_RETURN(const Layer layer, LoadLayer(index));
    Saved& saved = saved_[static_cast<size_t>(index)];
    RunAttention(layer, codes, index, saved);
    RunFeedForward(layer, saved);
  }
  last_ = stream_;
  hidden_.resize(stream_.size());
  for (size_t t = 0; t < tokens.size(); ++t) {
    const auto at = t * static_cast<size_t>(config.width);
    Norm(stream_.data() + at, output_norm_, config.norm_epsilon, hidden_.data() + at);
  }
  return absl::OkStatus();
}

// ---- Losses -----------------------------------------------------------------------------------

GradientLosses GradientModel::Judge(const std::vector<float>& exact,
                                    std::span<const float> weights) {
  const int64_t width = file_.config().width;
  const auto vocabulary = static_cast<size_t>(file_.config().vocabulary);
  GradientLosses losses;
  losses.kl.resize(tokens_.size());
  losses.nll.resize(tokens_.size());
  gradient_.assign(hidden_.size(), 0);
  ForRows([&](int64_t first) {
    if (std::all_of(weights.begin() + first, weights.begin() + first + kPage,
                    [](float weight) { return weight == 0; })) {
      return;
    }
    std::vector<float> p(kPage * vocabulary);
    std::vector<float> q(kPage * vocabulary);
    const auto stride = static_cast<int64_t>(vocabulary);
    Multiply(exact.data() + first * width, kPage, width, head_, /*add=*/false, p.data(), stride);
    Multiply(hidden_.data() + first * width, kPage, width, head_, /*add=*/false, q.data(), stride);
    for (int64_t row = 0; row < kPage; ++row) {
      const auto t = static_cast<size_t>(first + row);
      const std::span<float> expected(p.data() + row * stride, vocabulary);
      const std::span<float> found(q.data() + row * stride, vocabulary);
      if (weights[t] == 0) {
        std::fill(found.begin(), found.end(), 0.0f);
        continue;
      }
      std::vector<float> difference(expected.begin(), expected.end());
      for (size_t i = 0; i < vocabulary; ++i) difference[i] -= found[i];
      const float next = found[static_cast<size_t>(tokens_[t + 1])];
      const double expected_sum = Softmax(expected);
      const double found_sum = Softmax(found);
      double kl = found_sum - expected_sum;
      for (size_t i = 0; i < vocabulary; ++i) {
        kl += static_cast<double>(expected[i] * difference[i]);
        found[i] = weights[t] * (found[i] - expected[i]);
      }
      losses.kl[t] = kl;
      losses.nll[t] = found_sum - static_cast<double>(next);
    }
    Multiply(q.data(), kPage, stride, head_back_, /*add=*/false, gradient_.data() + first * width,
             width);
  });
  return losses;
}

void GradientModel::SampleCurvature(std::span<const float> weights, uint64_t seed) {
  const int64_t width = file_.config().width;
  const auto vocabulary = static_cast<size_t>(file_.config().vocabulary);
  gradient_.assign(hidden_.size(), 0);
  ForRows([&](int64_t first) {
    std::vector<float> p(kPage * vocabulary);
    const auto stride = static_cast<int64_t>(vocabulary);
    Multiply(hidden_.data() + first * width, kPage, width, head_, /*add=*/false, p.data(), stride);
    for (int64_t row = 0; row < kPage; ++row) {
      const auto t = static_cast<size_t>(first + row);
      const std::span<float> found(p.data() + row * stride, vocabulary);
      Softmax(found);
      SampleChoice(found, weights[t], seed, t);
    }
    Multiply(p.data(), kPage, stride, head_back_, /*add=*/false, gradient_.data() + first * width,
             width);
  });
}

// ---- Backward ---------------------------------------------------------------------------------

void GradientModel::BackFeedForward(const Layer& layer, const Saved& saved) {
  const ModelConfig& config = file_.config();
  const int64_t width = config.width;
  const int64_t inner = config.feed_forward_width;
  PackedMatrix gate_up, gate_up_back, down_back;
  gate_up.PackTransposed(layer.gate_up.data(), width, 2 * inner, width);
  gate_up_back.Pack(layer.gate_up.data(), 2 * inner, width, width);
  down_back.Pack(layer.down.data(), width, inner, inner);
  ForRows([&](int64_t first) {
    std::vector<float> normed(static_cast<size_t>(kPage * width));
    std::vector<float> both(static_cast<size_t>(kPage * 2 * inner));
    std::vector<float> activated(static_cast<size_t>(kPage * inner));
    float* stream = stream_.data() + first * width;
    for (int64_t t = 0; t < kPage; ++t) {
      Norm(saved.middle.data() + (first + t) * width, layer.feed_forward_norm, config.norm_epsilon,
           normed.data() + t * width);
    }
    Multiply(normed.data(), kPage, width, gate_up, /*add=*/false, both.data(), 2 * inner);
    Multiply(stream, kPage, width, down_back, /*add=*/false, activated.data(), inner);
    for (int64_t t = 0; t < kPage; ++t) {
      float* gate = both.data() + t * 2 * inner;
      float* up = gate + inner;
      const float* gradient = activated.data() + t * inner;
      for (int64_t i = 0; i < inner; ++i) {
        const float sigmoid = Sigmoid(gate[i]);
        const float silu = gate[i] * sigmoid;
        gate[i] = gradient[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
        up[i] = gradient[i] * silu;
      }
    }
    Multiply(both.data(), kPage, 2 * inner, gate_up_back, /*add=*/false, normed.data(), width);
    for (int64_t t = 0; t < kPage; ++t) {
      BackNorm(saved.middle.data() + (first + t) * width, layer.feed_forward_norm,
               config.norm_epsilon, normed.data() + t * width, /*add=*/true, stream + t * width);
    }
  });
}

void GradientModel::BackAttention(const Layer& layer, const Saved& saved, TieredRows& gradients) {
  const ModelConfig& config = file_.config();
  const AttentionShape& shape = config.attention;
  const auto tokens = static_cast<int64_t>(tokens_.size());
  const int64_t width = config.width;
  const int64_t q_width = int64_t{shape.heads} * shape.head_size;
  const int64_t row_width = int64_t{shape.kv_heads} * shape.head_size;
  const int64_t qkv_width = q_width + 2 * row_width;
  PackedMatrix qkv, qkv_back, output_back;
  qkv.PackTransposed(layer.qkv.data(), width, qkv_width, width);
  qkv_back.Pack(layer.qkv.data(), qkv_width, width, width);
  output_back.Pack(layer.output.data(), width, q_width, q_width);
  std::vector<float> out_gradient(static_cast<size_t>(tokens * q_width));
  std::vector<float> gradient(static_cast<size_t>(tokens * qkv_width));
  ForRows([&](int64_t first) {
    Multiply(stream_.data() + first * width, kPage, width, output_back, /*add=*/false,
             out_gradient.data() + first * q_width, q_width);
  });
  GradientAttention(shape, scheme_, pool_)
      .Backward(saved.qkv.data(), qkv_width, saved.rows, tokens,
                {.out = saved.attention.data(),
                 .log_sums = saved.log_sums.data(),
                 .out_gradient = out_gradient.data()},
                gradient.data(), qkv_width, gradients);
  ForRows([&](int64_t first) {
    std::vector<float> normed(static_cast<size_t>(kPage * width));
    std::vector<float> raw;
    if (config.qk_norm) {
      raw.resize(static_cast<size_t>(kPage * qkv_width));
      for (int64_t t = 0; t < kPage; ++t) {
        Norm(saved.input.data() + (first + t) * width, layer.attention_norm, config.norm_epsilon,
             normed.data() + t * width);
      }
      Multiply(normed.data(), kPage, width, qkv, /*add=*/false, raw.data(), qkv_width);
    }
    for (int64_t t = 0; t < kPage; ++t) {
      float* row = gradient.data() + (first + t) * qkv_width;
      for (int64_t i = 0; i < row_width; ++i) {
        const auto at = static_cast<size_t>((first + t) * row_width + i);
        for (size_t tier = 0; tier < 3; ++tier) {
          row[q_width + i] += gradients.keys[tier][at];
          row[q_width + row_width + i] += gradients.values[tier][at];
        }
      }
      UnprepareHeads(layer, raw.empty() ? nullptr : raw.data() + t * qkv_width, row, first + t);
    }
    Multiply(gradient.data() + first * qkv_width, kPage, qkv_width, qkv_back, /*add=*/false,
             normed.data(), width);
    for (int64_t t = 0; t < kPage; ++t) {
      BackNorm(saved.input.data() + (first + t) * width, layer.attention_norm, config.norm_epsilon,
               normed.data() + t * width, /*add=*/true, stream_.data() + (first + t) * width);
    }
  });
}

absl::Status GradientModel::Backward(const KvGradientSink& sink) {
  const ModelConfig& config = file_.config();
  for (size_t t = 0; t < tokens_.size(); ++t) {
    const auto at = t * static_cast<size_t>(config.width);
    BackNorm(last_.data() + at, output_norm_, config.norm_epsilon, gradient_.data() + at,
             /*add=*/false, stream_.data() + at);
  }
  TieredRows gradients;
  for (int32_t index = config.layers - 1; index >= 0; --index) {
    ASYMSERVE_ASSIGN_OR_RETURN(const Layer layer, LoadLayer(index));
    const Saved& saved = saved_[static_cast<size_t>(index)];
    BackFeedForward(layer, saved);
    BackAttention(layer, saved, gradients);
    sink({.layer = index,
          .tokens = static_cast<int64_t>(tokens_.size()),
          .rows = saved.rows,
          .gradients = gradients});
  }
  return absl::OkStatus();
}

}  // namespace asymserve
