#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/model/model.h"
#include "engine/model/model_config.h"
#include "engine/model/weight_file.h"

namespace asymserve {

struct LlamaOptions {
  int32_t max_step_tokens = 512;  // T
  int32_t max_logit_rows = 64;    // R
  int32_t max_positions = 0;      // rotary table; 0: the model's context
  bool counts_only = false;       // the backend is a counter: tables need no values
};

/// The Llama family (model_config.h says what varies) as a list of backend operations. Weights are
/// packed into the backend at load; the file may be closed afterwards.
class LlamaModel final : public Model {
 public:
  /// `backend` outlives the model. Errors name the tensor.
  static absl::StatusOr<std::unique_ptr<LlamaModel>> Load(const WeightFile& file, Backend& backend,
                                                          const LlamaOptions& options);

  int32_t vocabulary() const override { return config_.vocabulary; }
  int32_t context_length() const override { return max_positions_; }
  std::optional<DrawLimits> draw_limits() const override { return draw_limits_; }
  ThreadPool* threads() override { return backend_.threads(); }
  const ModelConfig& config() const { return config_; }
  /// The rotary table as uploaded: [max positions, D].
  TensorView rope() const { return rope_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  absl::StatusOr<TensorView> Forward(const Batch& batch) override;

 private:
  struct Layer {
    TensorView attention_norm, feed_forward_norm;  // [C]
    std::unique_ptr<Weight> qkv;                   // [(H + 2G) * D, C]
    std::unique_ptr<Weight> attention_output;      // [C, H * D]
    std::unique_ptr<Weight> gate_up;               // [2F, C]
    std::unique_ptr<Weight> down;                  // [C, F]
    QkvParams qkv_params;
  };

  LlamaModel(const ModelConfig& config, Backend& backend) : config_(config), backend_(backend) {}
  absl::Status LoadWeights(const WeightFile& file, const LlamaOptions& options);
  absl::StatusOr<Layer> LoadLayer(const WeightFile& file, int32_t index);
  absl::StatusOr<std::unique_ptr<Weight>> Pack(const WeightFile& file,
                                               std::span<const std::string> names);
  absl::StatusOr<TensorView> UploadVector(const WeightFile& file, std::string_view name);
  absl::Status AllocateActivations(const LlamaOptions& options);
  absl::Status RunLayer(const KvStep& step, int32_t index, int64_t tokens);

  const ModelConfig config_;
  Backend& backend_;
  int32_t max_positions_ = 0;
  int64_t weight_bytes_ = 0;
  std::unique_ptr<Weight> embedding_;  // [V, C]
  std::unique_ptr<Weight> output_;     // [V, C]; null when tied
  TensorView output_norm_;
  TensorView rope_;
  std::vector<Layer> layers_;
  std::optional<DrawLimits> draw_limits_;
  // Activations, by their largest number of rows.
  TensorView residual_, normed_, qkv_, attention_, delta_, gate_up_, activated_, selected_, logits_;
};

/// [positions, D]: D/2 cosines, then D/2 sines of each position's angles, scaling applied.
std::vector<float> RopeTable(const ModelConfig& config, int32_t positions);

}  // namespace asymserve
