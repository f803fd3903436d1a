#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/backend/token_draw.h"
#include "engine/model/sampler.h"

namespace asymserve {

/// The tokens of a step that the backend chooses, as far as it does; their memory is used from step
/// to step.
class DrawList {
 public:
  /// `limits`: Model::draw_limits.
  explicit DrawList(std::optional<DrawLimits> limits) : limits_(limits) {}

  /// Whether there may be draws at all.
  bool enabled() const { return limits_.has_value(); }
  void Clear();
  /// Has the token of the row drawn, if the backend can. Rows ascend.
  void Add(const SampleRequest& request, int32_t row);
  /// Valid until the next change.
  DrawBatch batch() const { return {draws_, edits_}; }
  std::span<DrawnToken> drawn() { return drawn_; }
  /// The token of a row, after the step; null: it is sampled on the host.
  const DrawnToken* Find(int32_t row) const;

 private:
  const std::optional<DrawLimits> limits_;
  std::vector<TokenDraw> draws_;
  std::vector<LogitEdit> edits_;
  std::vector<DrawnToken> drawn_;
};

}  // namespace asymserve
