#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/base/tensor.h"
#include "engine/kv/scheme.h"
#include "engine/model/llama.h"
#include "engine/model/model_config.h"
#include "engine/model/weight_file.h"
#include "engine/quality/linear_algebra.h"

namespace asymserve {

struct KvStatisticsOptions {
  int32_t frame_tokens = 512;    // as in KvScheme
  int32_t skip_tokens = 64;      // first positions of a sequence: the sink page is never sealed
  int32_t query_offsets = 2048;  // queries are taken at a distance in [0, query_offsets)
  uint64_t seed = 1;
};

/// What the code of every (layer, tensor, KV head) is trained on. Letters as in backend.h; N tokens
/// were seen at positions from skip_tokens on. Items are [L][2][G] as in KvScheme::items. One
/// thread while it is filled.
class KvStatistics {
 public:
  /// `positions`: all positions are below this.
  KvStatistics(const ModelConfig& config, int32_t positions, const KvStatisticsOptions& options);

  /// Takes q, k and v of a layer, as LlamaModel's tap gives them (on the host): keys rotated back
  /// to the start of their frame, values as they are, queries rotated to a random distance from the
  /// start of a frame, one for all heads of a token.
  void Observe(int32_t layer, TensorView qkv, std::span<const int32_t> positions);
  /// Sets the value metrics of a layer from attn_output.weight [C, H * D].
  void SetOutputWeight(int32_t layer, const WeightSource& weight);

  const KvShape& shape() const { return shape_; }
  size_t items() const { return items_.size(); }
  int64_t rows() const;
  /// [N][D], rounded to fp16.
  std::vector<float> Rows(size_t item) const;
  /// Keys: mean of q q^T over tokens and the H/G query heads that read the head. Values: sum over
  /// those heads of W^T W, W [C][D] the part of attn_output.weight that reads head h.
  SquareMatrix Metric(size_t item) const;

  /// The distance at which the queries of a layer are taken for token number `token` of the
  /// statistics: uniform in [0, query_offsets).
  int32_t QueryOffset(int32_t layer, int64_t token) const;

 private:
  struct Item {
    std::vector<uint16_t> rows;  // fp16
    SquareMatrix metric;         // lower triangle; keys: the sum
  };

  void AddKey(Item& item, const float* key, int32_t position);
  void AddQueries(Item& item, std::span<const float> queries);
  void Turn(float* head, int32_t positions, bool back) const;
  Item& At(int32_t layer, KvTensor tensor, int32_t head);

  AttentionShape attention_;
  RopeStyle rope_style_;
  KvStatisticsOptions options_;
  KvShape shape_;
  std::vector<float> rope_;  // [positions][D]
  std::vector<Item> items_;
};

/// Runs the model over token sequences, each from position 0 on, with exact pages (PseudoDecoder
/// says what the model must be able to take), and collects. Starts the backend's KV arena anew.
/// `file` is the model's; the backend is the CPU's. 276 MB for 12 K tokens of SmolLM2.
/// InvalidArgument names a sequence that does not fit the context.
absl::StatusOr<KvStatistics> CollectKvStatistics(LlamaModel& model, Backend& backend,
                                                 const WeightFile& file,
                                                 std::span<const std::vector<int32_t>> sequences,
                                                 const KvStatisticsOptions& options);

}  // namespace asymserve
