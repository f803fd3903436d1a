#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/profile.h"
#include "engine/quality/code_search.h"
#include "engine/quality/text_source.h"

namespace asymserve {

struct CalibrationOptions {
  std::string model_path;
  /// Each text is cut into passages that follow one another: those that codes are trained on, those
  /// that the search measures, and those that the tiers are verified on.
  std::vector<TextSource> texts;
  int32_t passage_tokens = 1152;  // a multiple of 192; a third of it is read again
  int32_t train_passages = 1;     // of each text
  int32_t search_passages = 1;
  int32_t verify_passages = 1;
  CodeSearchOptions search;
  std::vector<TierRequest> tiers = {{.name = "light", .bits = 1.5},
                                    {.name = "balanced", .bits = 1.0},
                                    {.name = "dense", .bits = 0.75}};
  /// Not 0: instead of the tiers the cheapest allocation whose verified KL is at most this, as a
  /// tier of the name of the first.
  double max_kl = 0;
  int32_t threads = 1;  // of training and gradients; the backend has its own
  /// What was computed is kept here until the end, and an interrupted run goes on from it; empty:
  /// it is not.
  std::string journal_path;
};

/// What calibration is doing, and how far all of it is.
using CalibrationProgress = std::function<void(const std::string& what, double fraction)>;

/// Ranges. InvalidArgument names the option.
absl::Status CheckCalibrationOptions(const CalibrationOptions& options);

/// Loads the model onto the backend, trains the learned codes of every (layer, tensor, KV head) by
/// the curvature of the loss on new text and on a passage read again, gives out the bits of each
/// tier by loss per byte, measured with gradients at the middle tier, and verifies the tiers on
/// text kept apart, on the backend's own pages. A function of its arguments: neither time nor
/// threads nor interruptions change the result. NotFound: no scheme meets max_kl.
absl::StatusOr<KvProfile> Calibrate(Backend& backend, const CalibrationOptions& options,
                                    const CalibrationProgress& progress);

}  // namespace asymserve
