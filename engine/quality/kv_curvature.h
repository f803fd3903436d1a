#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "engine/kv/scheme.h"
#include "engine/quality/gradient_model.h"
#include "engine/quality/linear_algebra.h"

namespace asymserve {

/// What the code of every (layer, tensor, KV head) is trained on: rows, and how much the loss bends
/// when a row changes, from gradients of GradientModel::SampleCurvature: with g the gradient at a
/// row, g g^T is in the mean the row's own Fisher information. It is taken as weight(row) times one
/// metric for all rows of an item. Keys and their gradients are rotated back to the start of their
/// frame. Items are [L][2][G] as in KvScheme::items. One thread while it is filled.
class KvCurvature {
 public:
  /// Rotates a key [D] of a position, or its gradient, back to the start of its frame.
  using TurnToFrame = std::function<void(int64_t position, float* head)>;

  explicit KvCurvature(const KvShape& shape);

  /// Takes the rows of positions in [first, end) of a layer, with the gradients of aged reading:
  /// who reads a page fresh does not feel what its base planes lack.
  void Observe(const KvGradients& layer, int64_t first, int64_t end, const TurnToFrame& turn);

  const KvShape& shape() const { return shape_; }
  /// [N][D], rounded to fp16.
  std::vector<float> Rows(size_t item) const;
  /// [N], mean 1: trace of g g^T Metric^-1, between a tenth and ten times the mean.
  std::vector<float> Weights(size_t item) const;
  /// Mean of g g^T.
  SquareMatrix Metric(size_t item) const;
  /// How much more the loss bends with rows of fresh pages than with those of aged ones: the ratio
  /// of their mean squared gradients.
  double FreshShare(size_t item) const;

 private:
  struct Item {
    std::vector<uint16_t> rows;       // fp16
    std::vector<uint16_t> gradients;  // upper halves of floats
    std::vector<double> sums;         // lower triangle of the sum of g g^T
    double fresh = 0;                 // sum of squared gradients of fresh reading
  };

  KvShape shape_;
  std::vector<Item> items_;
};

}  // namespace asymserve
