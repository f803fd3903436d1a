#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include "engine/backend/cuda/arg_max.h"
#include "engine/backend/cuda/draw_rows.h"
#include "engine/backend/cuda/draw_tokens.h"
#include "engine/backend/cuda/edit_logits.h"
#include "engine/backend/cuda/token_sampler.h"
#include "tests/engine/backend/cuda/device_arena.h"
#include "tests/simt/orders.h"

namespace asymserve::testing {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

/// Draws and what kernels want of them: a row of logits for each.
class Draws {
 public:
  explicit Draws(int32_t vocabulary) : vocabulary_(vocabulary) {}

  void Add(std::span<const float> logits, TokenDraw draw,
           const std::vector<LogitEdit>& edits = {}) {
    draw.row = static_cast<int32_t>(draws_.size());
    draw.first_edit = static_cast<int32_t>(edits_.size());
    draw.edit_count = static_cast<int32_t>(edits.size());
    draws_.push_back(draw);
    edits_.insert(edits_.end(), edits.begin(), edits.end());
    logits_.insert(logits_.end(), logits.begin(), logits.end());
  }
  size_t size() const { return draws_.size(); }
  std::span<const float> row(size_t i) const {
    const auto size = static_cast<size_t>(vocabulary_);
    return std::span(logits_).subspan(i * size, size);
  }
  const TokenDraw& draw(size_t i) const { return draws_[i]; }
  const std::vector<float>& logits() const { return logits_; }

  /// The arrays of a launch, results as they are before it.
  cuda::DrawRows Rows() {
    unedited_.assign(edits_.size(), kNan);
    best_.assign(draws_.size(), {kNan, 1 << 30});
    edited_ = best_;
    drawn_.assign(draws_.size(), {1 << 30, kNan, kNan, kNan});
    return {.logits = logits_.data(),
            .vocabulary = vocabulary_,
            .draws = draws_.data(),
            .count = static_cast<int32_t>(draws_.size()),
            .edits = edits_.data(),
            .unedited = unedited_.data(),
            .best = best_.data(),
            .edited = edited_.data(),
            .drawn = drawn_.data()};
  }
  /// All kernels, as a backend runs them.
  std::vector<DrawnToken> Run() {
    const std::vector<float> before = logits_;
    EXPECT_EQ(cuda::LaunchDraws(Rows(), !edits_.empty(), true, nullptr), cudaSuccess)
        << LaunchFault();
    EXPECT_TRUE(SameBits(logits_, before)) << "the logits are not what they were";
    return drawn_;
  }
  std::vector<int32_t> Tokens() {
    std::vector<int32_t> tokens;
    for (const DrawnToken& drawn : Run()) tokens.push_back(drawn.token);
    return tokens;
  }
  std::vector<int32_t> TokensInEveryOrder() {
    return simt::SameInEveryOrder([&] { return Tokens(); });
  }
  const std::vector<cuda::BestLogit>& best() const { return best_; }

 private:
  const int32_t vocabulary_;
  std::vector<float> logits_;
  std::vector<TokenDraw> draws_;
  std::vector<LogitEdit> edits_;
  std::vector<float> unedited_;
  std::vector<cuda::BestLogit> best_, edited_;
  std::vector<DrawnToken> drawn_;
};

inline std::vector<float> RandomLogits(int32_t vocabulary, uint32_t seed, float sigma = 3) {
  return Matrix::Random(1, vocabulary, seed, sigma).values;
}

}  // namespace asymserve::testing
