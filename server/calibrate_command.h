#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "config/config.h"
#include "engine/quality/calibration.h"
#include "server/serve.h"

namespace CLI {
class App;
}

namespace asymserve {

/// The command line of `asymserve calibrate`, as written.
struct CalibrateArguments {
  std::vector<std::string> texts;  // FILE[@OFFSET]; none: the mixture
  std::string mixture;             // folder; empty: the one that comes with the project
  std::string out_path;            // the profile
  double budget = 0;  // bits per element of one tier named "custom"; 0: the usual tiers
  double max_kl = 0;  // not 0: the cheapest tier within it, named "custom"
  double copy_weight = CodeSearchOptions().copy_weight;
  int32_t rounds = CodeSearchOptions().rounds;
  uint64_t seed = CodeSearchOptions().seed;
  bool quick = false;  // shorter texts
};

/// `arguments` outlives the parsing.
void AddCalibrateOptions(CLI::App& command, CalibrateArguments& arguments);

/// What can be checked without the model: InvalidArgument names the option.
absl::StatusOr<CalibrationOptions> ReadCalibrationOptions(const CalibrateArguments& arguments,
                                                          const Config& config);

/// `asymserve calibrate`: writes the profile (whole or not at all), a summary of its tiers to
/// `out`, progress to standard error. What an interrupted run has computed is in the file
/// options.journal_path, which is removed at the end.
absl::Status RunCalibrate(const CalibrationOptions& options, const std::string& out_path,
                          const EngineSection& engine, const BackendFactory& make_backend,
                          std::ostream& out);

}  // namespace asymserve
