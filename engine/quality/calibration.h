#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/profile.h"
#include "engine/quality/text_source.h"

namespace asymserve {

/// A tier to be searched.
struct TierRequest {
  std::string name;
  double bits = 1.0;  // of aged pages, per element
  int32_t fresh_pages = 4;
};

struct CalibrationOptions {
  std::string model_path;
  /// Each text is cut in three parts that follow one another: what codes are trained on, what the
  /// search measures, and what the profile reports as losses.
  std::vector<TextSource> texts;
  int32_t train_tokens = 2048;   // of each text
  int32_t search_tokens = 448;   // of each text, read twice
  int32_t search_texts = 2;      // of the texts, the first ones
  int32_t verify_tokens = 1024;  // of each search text
  int32_t rounds = 1;            // of measuring every item; from the second on at the newest
                                 // allocation of the first tier
  double copy_weight = 0.25;     // of the copy loss against that on new text
  std::vector<TierRequest> tiers = {{"light", 1.5, 4}, {"balanced", 1.0, 4}, {"dense", 0.75, 4}};
  uint64_t seed = 1;
  int32_t threads = 1;  // that train; the backend has its own
};

/// What calibration is doing, and how far it is.
using CalibrationProgress = std::function<void(const std::string& what, double fraction)>;

/// Ranges. InvalidArgument names the option.
absl::Status CheckCalibrationOptions(const CalibrationOptions& options);

/// Loads the model onto the backend, trains the learned codes of every (layer, tensor, KV head),
/// measures what each item costs end to end, on new text and on a passage read again, gives out the
/// bits of each tier by loss per byte, and measures the tiers on text kept apart. A function of its
/// arguments: neither time nor threads change the result.
absl::StatusOr<KvProfile> Calibrate(Backend& backend, const CalibrationOptions& options,
                                    const CalibrationProgress& progress);

}  // namespace asymserve
