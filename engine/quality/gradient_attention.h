#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/base/thread_pool.h"
#include "engine/kv/page_tier.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// Keys and values of a layer as attention reads them in each KvTier, [T][G * D] each; or the
/// gradients with respect to them.
struct TieredRows {
  std::array<std::vector<float>, 3> keys;
  std::array<std::vector<float>, 3> values;
};

/// Attention of one sequence in fp32 with its gradient: as PseudoDecoder runs it, each page of 64
/// queries reads every page before it in the tier that the scheme gives it then. T is a multiple of
/// 64. Results do not depend on the number of threads.
class GradientAttention {
 public:
  GradientAttention(const AttentionShape& shape, const KvScheme& scheme, ThreadPool& pool)
      : shape_(shape), scheme_(scheme), pool_(pool) {}

  /// out [T][H * D] and, for Backward, log_sums [T][H]: q [T] rows `q_stride` floats apart.
  void Forward(const float* q, int64_t q_stride, const TieredRows& rows, int64_t tokens, float* out,
               float* log_sums) const;

  struct Gradient {
    const float* out;           // [T][H * D], as Forward gave it
    const float* log_sums;      // [T][H]
    const float* out_gradient;  // [T][H * D]
  };
  /// q_gradient [T] rows `gradient_stride` apart are written, `row_gradients` too (resized).
  void Backward(const float* q, int64_t q_stride, const TieredRows& rows, int64_t tokens,
                const Gradient& gradient, float* q_gradient, int64_t gradient_stride,
                TieredRows& row_gradients) const;

 private:
  struct Task;
  struct Tiles;

  size_t Tier(KvTensor tensor, int64_t key_page, int64_t query_page) const {
    return static_cast<size_t>(
        TierOf(scheme_, tensor, static_cast<int32_t>(key_page), static_cast<int32_t>(query_page)));
  }
  void ForwardPage(const Task& task, int64_t head, int64_t page, float* out, float* log_sums) const;
  void Weights(const Task& task, int64_t head, int64_t page, int64_t key_page, Tiles& tiles) const;
  void QueryGradients(const Task& task, int64_t kv_head, int64_t page) const;
  void RowGradients(const Task& task, int64_t kv_head, int64_t key_page) const;

  AttentionShape shape_;
  const KvScheme& scheme_;
  ThreadPool& pool_;
};

}  // namespace asymserve
