#include "engine/quality/kv_curvature.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "engine/base/float16.h"
#include "engine/kv/item_name.h"

namespace asymserve {
namespace {

constexpr double kRidge = 0.03;  // of the metric's mean diagonal, where it is inverted
constexpr double kLeastWeight = 0.1;
constexpr double kMostWeight = 10;

}  // namespace

KvCurvature::KvCurvature(const KvShape& shape) : shape_(shape), items_(KvItemCount(shape)) {}

void KvCurvature::Observe(const KvGradients& layer, int64_t first, int64_t end,
                          const TurnToFrame& turn) {
  const auto width = static_cast<size_t>(shape_.head_size);
  const auto aged = static_cast<size_t>(KvTier::kAged);
  std::vector<float> row(width), gradient(width);
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const bool key = tensor == KvTensor::kKey;
    const auto& rows = (key ? layer.rows.keys : layer.rows.values)[0];
    const auto& tiers = key ? layer.gradients.keys : layer.gradients.values;
    const auto& gradients = tiers[aged];
    const auto& fresh = tiers[static_cast<size_t>(KvTier::kFresh)];
    for (int32_t head = 0; head < shape_.kv_heads; ++head) {
      Item& item = items_[KvItemIndex(shape_, layer.layer, tensor, head)];
      item.sums.resize(width * width);
      for (int64_t t = first; t < end; ++t) {
        const int64_t at = (t * shape_.kv_heads + head) * shape_.head_size;
        std::copy_n(rows.begin() + at, width, row.begin());
        std::copy_n(gradients.begin() + at, width, gradient.begin());
        if (key) {
          turn(t, row.data());
          turn(t, gradient.data());
        }
        for (size_t i = 0; i < width && !fresh.empty(); ++i) {
          const auto value = static_cast<double>(fresh[static_cast<size_t>(at) + i]);
          item.fresh += value * value;
        }
        for (size_t i = 0; i < width; ++i) {
          item.rows.push_back(FloatToHalf(row[i]));
          item.gradients.push_back(
              static_cast<uint16_t>(std::bit_cast<uint32_t>(gradient[i]) >> 16));
          double* sums = item.sums.data() + i * width;
          const auto factor = static_cast<double>(gradient[i]);
          for (size_t j = 0; j <= i; ++j) sums[j] += factor * static_cast<double>(gradient[j]);
        }
      }
    }
  }
}

std::vector<float> KvCurvature::Rows(size_t item) const {
  std::vector<float> rows;
  rows.reserve(items_[item].rows.size());
  for (const uint16_t half : items_[item].rows) rows.push_back(HalfToFloat(half));
  return rows;
}

SquareMatrix KvCurvature::Metric(size_t item) const {
  const Item& from = items_[item];
  SquareMatrix metric(shape_.head_size);
  const double count = std::max(1.0, static_cast<double>(from.rows.size()) / shape_.head_size);
  for (int32_t row = 0; row < metric.n && !from.sums.empty(); ++row) {
    for (int32_t col = 0; col <= row; ++col) {
      metric.at(row, col) = from.sums[metric.Index(row, col)] / count;
      metric.at(col, row) = metric.at(row, col);
    }
  }
  return metric;
}

double KvCurvature::FreshShare(size_t item) const {
  const Item& from = items_[item];
  double aged = 0;
  for (size_t i = 0; i < from.sums.size(); i += static_cast<size_t>(shape_.head_size) + 1) {
    aged += from.sums[i];
  }
  return aged > 0 ? from.fresh / aged : 0;
}

std::vector<float> KvCurvature::Weights(size_t item) const {
  const auto width = static_cast<size_t>(shape_.head_size);
  const std::vector<uint16_t>& gradients = items_[item].gradients;
  const size_t count = gradients.size() / width;
  SquareMatrix metric = Metric(item);
  double diagonal = 0;
  for (int32_t d = 0; d < metric.n; ++d) diagonal += metric.at(d, d) / metric.n;
  for (int32_t d = 0; d < metric.n; ++d) metric.at(d, d) += kRidge * diagonal;
  const absl::StatusOr<SquareMatrix> factor = Cholesky(metric);
  if (!factor.ok()) return std::vector<float>(count, 1.0f);
  std::vector<double> weights;
  std::vector<double> solved(width);
  double total = 0;
  for (size_t n = 0; n < count; ++n) {
    double weight = 0;
    for (size_t i = 0; i < width; ++i) {  // factor * solved = g
      const uint32_t bits = uint32_t{gradients[n * width + i]} << 16;
      auto left = static_cast<double>(std::bit_cast<float>(bits));
      const double* row = factor->values.data() + i * width;
      for (size_t j = 0; j < i; ++j) left -= row[j] * solved[j];
      solved[i] = left / row[i];
      weight += solved[i] * solved[i];
    }
    weights.push_back(weight);
    total += weight / static_cast<double>(count);
  }
  double limited = 0;
  for (double& weight : weights) {
    weight = std::clamp(weight / total, kLeastWeight, kMostWeight);
    limited += weight / static_cast<double>(count);
  }
  std::vector<float> result;
  result.reserve(count);
  for (const double weight : weights) result.push_back(static_cast<float>(weight / limited));
  return result;
}

}  // namespace asymserve
