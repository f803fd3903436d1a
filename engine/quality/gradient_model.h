#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/thread_pool.h"
#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"
#include "engine/model/weight_file.h"
#include "engine/quality/gradient_attention.h"
#include "engine/quality/matrix_product.h"

namespace asymserve {

/// A layer's keys and values during Backward: [T][G * D], keys rotated to their positions.
struct KvGradients {
  int32_t layer = 0;
  int64_t tokens = 0;
  const TieredRows& rows;       // as attention read them; kNear: exact
  const TieredRows& gradients;  // of the loss, with respect to `rows`
};
using KvGradientSink = std::function<void(const KvGradients& layer)>;

/// What a position lost, in nats; 0 where its weight is 0.
struct GradientLosses {
  std::vector<double> kl;   // [T] KL(exact || this)
  std::vector<double> nll;  // [T] of the token that follows
};

/// The Llama family once more, in fp32 and with its gradient with respect to every stored key and
/// value: what calibration judges codes by. One sequence from position 0 on, its length a multiple
/// of 64, pages read as PseudoDecoder does. Quantization passes gradients on as they are. Results
/// depend neither on the number of threads nor on the instruction set.
class GradientModel {
 public:
  /// `file`, `pool` outlive the model. Holds the embedding table twice in fp32; for T tokens a pass
  /// takes about T * L * (5 C + 6 (H + G) D) bytes more.
  static absl::StatusOr<std::unique_ptr<GradientModel>> Create(const WeightFile& file,
                                                               ThreadPool& pool);

  /// Runs a sequence with `scheme`; `codes` null: its tiers count, but nothing is quantized.
  absl::Status Forward(std::span<const int32_t> tokens, const KvScheme& scheme,
                       const PlaneCodes* codes);
  /// The final hidden state [T][C], normed: enough to have the logits again.
  const std::vector<float>& hidden() const { return hidden_; }
  /// Rotates a key or its gradient [D] back by the angles of `position`.
  void TurnBack(float* head, int64_t position) const { Turn(head, position, /*back=*/true); }

  /// Losses of the sequence run last against `exact`, the hidden state of an exact run of it.
  /// `weights` [T]: how much a position counts; the last one has no next token.
  GradientLosses Judge(const std::vector<float>& exact, std::span<const float> weights);
  /// The gradient of the weighted sum of KL, page by page from the last layer to the first.
  absl::Status Backward(const KvGradientSink& sink);
  /// Instead of Judge: sets out for Backward to give the gradient of a random function whose
  /// squared gradient is in the mean the curvature (Fisher information) of the weighted KL.
  void SampleCurvature(std::span<const float> weights, uint64_t seed);

 private:
  struct Layer;   // its weights, unpacked
  struct Saved {  // of a layer, for Backward
    std::vector<float> input, qkv, attention, log_sums, middle;
    TieredRows rows;
  };

  GradientModel(const WeightFile& file, ThreadPool& pool) : file_(file), pool_(pool) {}
  absl::StatusOr<std::vector<float>> Floats(const std::string& name) const;
  absl::StatusOr<Layer> LoadLayer(int32_t index) const;
  template <typename Body>
  void ForRows(Body&& body) const;  // body(first row), pages of rows in parallel

  absl::Status Embed(std::span<const int32_t> tokens);
  void RunAttention(const Layer& layer, const PlaneCodes* codes, int32_t index, Saved& saved);
  void RunFeedForward(const Layer& layer, const Saved& saved);
  void PrepareHeads(const Layer& layer, float* qkv, int64_t position) const;
  void UnprepareHeads(const Layer& layer, const float* raw, float* gradient,
                      int64_t position) const;
  void Turn(float* head, int64_t position, bool back) const;
  void SealRows(const PlaneCodes* codes, int32_t index, Saved& saved) const;
  void SealPage(const PlaneCodes& codes, int32_t layer, int32_t head, int64_t page,
                Saved& saved) const;
  void BackFeedForward(const Layer& layer, const Saved& saved);
  void BackAttention(const Layer& layer, const Saved& saved, TieredRows& gradients);

  const WeightFile& file_;
  ThreadPool& pool_;
  std::vector<float> output_norm_;
  std::vector<float> rope_;  // [positions][D]
  PackedMatrix head_, head_back_;
  std::vector<int32_t> tokens_;
  KvScheme scheme_;
  std::vector<float> stream_;    // [T][C] residual, or its gradient
  std::vector<float> hidden_;    // [T][C]
  std::vector<float> gradient_;  // [T][C] of hidden_
  std::vector<Saved> saved_;
  std::vector<float> last_;  // [T][C] residual before the last norm
};

}  // namespace asymserve
