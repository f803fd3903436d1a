#include "engine/quality/gradient_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/kv/codec.h"
#include "engine/quality/fast_exp.h"
#include "engine/quality/matrix_product.h"

namespace asymserve {
namespace {

constexpr int64_t kPage = kKvPageTokens;
constexpr float kMasked = -std::numeric_limits<float>::infinity();

/// scores [kPage] rows `stride` apart of a page with itself: no token sees those behind it.
void MaskFuture(float* scores, int64_t stride) {
  for (int64_t row = 0; row < kPage; ++row) {
    std::fill(scores + row * stride + row + 1, scores + row * stride + kPage, kMasked);
  }
}

}  // namespace

/// What all pages of one call share.
struct GradientAttention::Task {
  const float* q = nullptr;
  int64_t q_stride = 0;
  const TieredRows* rows = nullptr;
  int64_t tokens = 0;
  const Gradient* gradient = nullptr;
  const float* dots = nullptr;  // [T][H]: out . out_gradient
  float* q_gradient = nullptr;
  int64_t gradient_stride = 0;
  TieredRows* row_gradients = nullptr;
};

/// One page of queries against one of keys, [kPage][kPage] each.
struct GradientAttention::Tiles {
  PackedMatrix packed;
  std::vector<float> weights = std::vector<float>(kPage * kPage);
  std::vector<float> scores = std::vector<float>(kPage * kPage);  // gradient of the scores
  std::vector<float> turned = std::vector<float>(kPage * kPage);

  const float* Turn(const std::vector<float>& tile) {
    for (int64_t row = 0; row < kPage; ++row) {
      for (int64_t c = 0; c < kPage; ++c) {
        turned[static_cast<size_t>(c * kPage + row)] = tile[static_cast<size_t>(row * kPage + c)];
      }
    }
    return turned.data();
  }
};

void GradientAttention::ForwardPage(const Task& task, int64_t head, int64_t page, float* out,
                                    float* log_sums) const {
  const int64_t width = shape_.head_size;
  const int64_t row_width = shape_.kv_heads * width;
  const int64_t out_width = shape_.heads * width;
  const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
  const int64_t columns = (page + 1) * kPage;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  std::vector<float> scores(static_cast<size_t>(kPage * columns));
  PackedMatrix packed;
  for (int64_t key_page = 0; key_page <= page; ++key_page) {
    const float* keys = task.rows->keys[Tier(KvTensor::kKey, key_page, page)].data();
    packed.PackTransposed(keys + key_page * kPage * row_width + kv_head * width, width, kPage,
                          row_width);
    Multiply(task.q + page * kPage * task.q_stride + head * width, kPage, task.q_stride, packed,
             /*add=*/false, scores.data() + key_page * kPage, columns);
  }
  MaskFuture(scores.data() + page * kPage, columns);
  for (int64_t row = 0; row < kPage; ++row) {
    float* score = scores.data() + row * columns;
    for (int64_t c = 0; c < columns; ++c) score[c] *= scale;
    const float top = *std::max_element(score, score + columns);
    for (int64_t c = 0; c < columns; ++c) score[c] = FastExp(score[c] - top);
    double sum = 0;
    for (int64_t c = 0; c < columns; ++c) sum += static_cast<double>(score[c]);
    const auto inverse = static_cast<float>(1 / sum);
    for (int64_t c = 0; c < columns; ++c) score[c] *= inverse;
    log_sums[(page * kPage + row) * shape_.heads + head] =
        static_cast<float>(static_cast<double>(top) + std::log(sum));
  }
  for (int64_t key_page = 0; key_page <= page; ++key_page) {
    const float* values = task.rows->values[Tier(KvTensor::kValue, key_page, page)].data();
    packed.Pack(values + key_page * kPage * row_width + kv_head * width, kPage, width, row_width);
    Multiply(scores.data() + key_page * kPage, kPage, columns, packed, /*add=*/key_page > 0,
             out + page * kPage * out_width + head * width, out_width);
  }
}

void GradientAttention::Forward(const float* q, int64_t q_stride, const TieredRows& rows,
                                int64_t tokens, float* out, float* log_sums) const {
  const Task task = {.q = q, .q_stride = q_stride, .rows = &rows, .tokens = tokens};
  const int64_t pages = tokens / kPage;
  pool_.ParallelFor(static_cast<int>(pages * shape_.heads), [&](int chunk, int /*thread*/) {
    // Long pages first, so that no thread is left with the longest at the end.
    ForwardPage(task, chunk % shape_.heads, pages - 1 - chunk / shape_.heads, out, log_sums);
  });
}

/// Fills weights and scores for a head: softmax weights, and the gradient of the unscaled scores.
void GradientAttention::Weights(const Task& task, int64_t head, int64_t page, int64_t key_page,
                                Tiles& tiles) const {
  const int64_t width = shape_.head_size;
  const int64_t row_width = shape_.kv_heads * width;
  const int64_t out_width = shape_.heads * width;
  const int64_t kv_head = head / (shape_.heads / shape_.kv_heads);
  const int64_t first = key_page * kPage * row_width + kv_head * width;
  const float scale = 1.0f / std::sqrt(static_cast<float>(width));
  float* weights = tiles.weights.data();
  float* scores = tiles.scores.data();
  tiles.packed.PackTransposed(task.rows->keys[Tier(KvTensor::kKey, key_page, page)].data() + first,
                              width, kPage, row_width);
  Multiply(task.q + page * kPage * task.q_stride + head * width, kPage, task.q_stride, tiles.packed,
           /*add=*/false, weights, kPage);
  if (key_page == page) MaskFuture(weights, kPage);
  tiles.packed.PackTransposed(
      task.rows->values[Tier(KvTensor::kValue, key_page, page)].data() + first, width, kPage,
      row_width);
  Multiply(task.gradient->out_gradient + page * kPage * out_width + head * width, kPage, out_width,
           tiles.packed, /*add=*/false, scores, kPage);
  for (int64_t row = 0; row < kPage; ++row) {
    const int64_t index = (page * kPage + row) * shape_.heads + head;
    const float log_sum = task.gradient->log_sums[index];
    const float dot = task.dots[index];
    float* weight = weights + row * kPage;
    float* score = scores + row * kPage;
    for (int64_t c = 0; c < kPage; ++c) {
      const float x = weight[c] * scale - log_sum;
      weight[c] = FastExp(x < 0 ? x : 0);
      score[c] = weight[c] * (score[c] - dot) * scale;
    }
  }
}

void GradientAttention::QueryGradients(const Task& task, int64_t kv_head, int64_t page) const {
  const int64_t width = shape_.head_size;
  const int64_t row_width = shape_.kv_heads * width;
  const int64_t group = shape_.heads / shape_.kv_heads;
  Tiles tiles;
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t key_page = 0; key_page <= page; ++key_page) {
      Weights(task, head, page, key_page, tiles);
      const float* keys = task.rows->keys[Tier(KvTensor::kKey, key_page, page)].data();
      tiles.packed.Pack(keys + key_page * kPage * row_width + kv_head * width, kPage, width,
                        row_width);
      Multiply(tiles.scores.data(), kPage, kPage, tiles.packed, /*add=*/key_page > 0,
               task.q_gradient + page * kPage * task.gradient_stride + head * width,
               task.gradient_stride);
    }
  }
}

void GradientAttention::RowGradients(const Task& task, int64_t kv_head, int64_t key_page) const {
  const int64_t width = shape_.head_size;
  const int64_t row_width = shape_.kv_heads * width;
  const int64_t out_width = shape_.heads * width;
  const int64_t group = shape_.heads / shape_.kv_heads;
  const int64_t first = key_page * kPage * row_width + kv_head * width;
  Tiles tiles;
  for (int64_t page = key_page; page < task.tokens / kPage; ++page) {
    float* keys = task.row_gradients->keys[Tier(KvTensor::kKey, key_page, page)].data() + first;
    float* values =
        task.row_gradients->values[Tier(KvTensor::kValue, key_page, page)].data() + first;
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      Weights(task, head, page, key_page, tiles);
      tiles.packed.Pack(task.gradient->out_gradient + page * kPage * out_width + head * width,
                        kPage, width, out_width);
      Multiply(tiles.Turn(tiles.weights), kPage, kPage, tiles.packed, /*add=*/true, values,
               row_width);
      tiles.packed.Pack(task.q + page * kPage * task.q_stride + head * width, kPage, width,
                        task.q_stride);
      Multiply(tiles.Turn(tiles.scores), kPage, kPage, tiles.packed, /*add=*/true, keys, row_width);
    }
  }
}

void GradientAttention::Backward(const float* q, int64_t q_stride, const TieredRows& rows,
                                 int64_t tokens, const Gradient& gradient, float* q_gradient,
                                 int64_t gradient_stride, TieredRows& row_gradients) const {
  const int64_t width = shape_.head_size;
  for (size_t tier = 0; tier < row_gradients.keys.size(); ++tier) {
    row_gradients.keys[tier].assign(static_cast<size_t>(tokens * shape_.kv_heads * width), 0);
    row_gradients.values[tier].assign(row_gradients.keys[tier].size(), 0);
  }
  std::vector<float> dots(static_cast<size_t>(tokens * shape_.heads));
  for (size_t i = 0; i < dots.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * width;
    for (int64_t c = 0; c < width; ++c) {
      dots[i] += gradient.out[at + c] * gradient.out_gradient[at + c];
    }
  }
  const Task task = {.q = q,
                     .q_stride = q_stride,
                     .rows = &rows,
                     .tokens = tokens,
                     .gradient = &gradient,
                     .dots = dots.data(),
                     .q_gradient = q_gradient,
                     .gradient_stride = gradient_stride,
                     .row_gradients = &row_gradients};
  const auto pages = static_cast<int>(tokens / kPage);
  pool_.ParallelFor(2 * pages * shape_.kv_heads, [&](int chunk, int /*thread*/) {
    const int half = pages * shape_.kv_heads;
    const int at = chunk % half;
    const int page = at / shape_.kv_heads;
    if (chunk < half) {
      QueryGradients(task, at % shape_.kv_heads, pages - 1 - page);
    } else {
      RowGradients(task, at % shape_.kv_heads, page);
    }
  });
}

}  // namespace asymserve
