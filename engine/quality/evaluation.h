#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/quality/free_running.h"
#include "engine/quality/quality_report.h"
#include "engine/quality/text_source.h"

namespace asymserve {

struct QualityOptions {
  std::string model_path;
  std::vector<std::string> schemes;  // names, ResolveKvScheme
  std::string profile_path;          // whose tiers may be named; empty: none
  std::vector<TextSource> texts;
  int32_t tokens = 2048;                           // of each text
  int32_t from = 256;                              // first position that counts
  bool copy = false;                               // read the first tokens/2 twice, too
  std::optional<FreeRunningOptions> free_running;  // generate, too
};

/// How far an evaluation is.
struct QualityProgress {
  int32_t scheme = 0;  // 1 ... schemes; 0 while the exact reference runs
  int32_t schemes = 0;
  std::string name;     // of the scheme
  std::string text;     // its name
  double fraction = 0;  // of the whole evaluation, [0, 1]
};
using QualityProgressSink = std::function<void(const QualityProgress&)>;

/// Ranges, as far as they do not depend on the model. InvalidArgument names the option.
absl::Status CheckQualityOptions(const QualityOptions& options);

/// Loads the model onto the backend and pseudo-decodes every text with every scheme (rows by text,
/// then by scheme). The exact logits of the text at hand stay in memory: tokens - from rows of V
/// floats. Copy test: CopyLoss of the first tokens/2. Free-running checks: quality/free_running.h,
/// line retrieval with the first text only. All names and texts are checked before the first is
/// run.
absl::StatusOr<std::vector<QualityRow>> EvaluateQuality(Backend& backend,
                                                        const QualityOptions& options,
                                                        const QualityProgressSink& progress);

}  // namespace asymserve
