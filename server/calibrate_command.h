#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config.h"
#include "engine/quality/calibration.h"
#include "server/serve.h"

namespace asymserve {

/// The command line of `asymserve calibrate`, as written.
struct CalibrateArguments {
  std::vector<std::string> texts;  // FILE[@OFFSET]
  std::string out_path;            // the profile
  double budget = 0;  // bits per element of one tier named "custom"; 0: the usual tiers
  int32_t search_texts = CalibrationOptions().search_texts;
  int32_t rounds = CalibrationOptions().rounds;
  uint64_t seed = CalibrationOptions().seed;
  bool quick = false;   // shorter texts
  int32_t threads = 0;  // 0: the configuration's
};

/// What can be checked without the model: InvalidArgument names the option.
absl::StatusOr<CalibrationOptions> ReadCalibrationOptions(const CalibrateArguments& arguments,
                                                          const Config& config);

/// `asymserve calibrate`: writes the profile (whole or not at all), a summary of its tiers to
/// `out`, progress to standard error.
absl::Status RunCalibrate(const CalibrationOptions& options, const std::string& out_path,
                          const EngineSection& engine, const BackendFactory& make_backend,
                          std::ostream& out);

}  // namespace asymserve
