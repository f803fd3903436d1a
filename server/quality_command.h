#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "config/config.h"
#include "engine/quality/evaluation.h"
#include "server/serve.h"

namespace asymserve {

/// The command line of `asymserve quality`, as written.
struct QualityArguments {
  std::vector<std::string> schemes;
  std::vector<std::string> texts;  // FILE[@OFFSET]
  int32_t tokens = QualityOptions().tokens;
  int32_t from = QualityOptions().from;
  bool copy = false;
  std::string profile;    // whose tiers --schemes may name; empty: none
  int32_t threads = 0;    // 0: the configuration's
  std::string json_path;  // empty: none
};

/// What can be checked without the model: InvalidArgument names the option.
absl::StatusOr<QualityOptions> ReadQualityOptions(const QualityArguments& arguments,
                                                  const Config& config);

/// `asymserve quality`: writes the table to `out`, JSON to `json_path` (whole or not at all) unless
/// that is empty, progress to standard error.
absl::Status RunQuality(const QualityOptions& options, const std::string& json_path,
                        const EngineSection& engine, const BackendFactory& make_backend,
                        std::ostream& out);

}  // namespace asymserve
