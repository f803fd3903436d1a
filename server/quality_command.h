#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "config/config.h"
#include "engine/quality/evaluation.h"
#include "server/serve.h"

namespace CLI {
class App;
}

namespace asymserve {

/// Files that `asymserve quality` writes, each whole or not at all; empty: not asked for.
struct QualityOutputs {
  std::string json_path;
  std::string plot_path;
};

/// The command line of `asymserve quality`, as written.
struct QualityArguments {
  std::vector<std::string> schemes;
  std::vector<std::string> texts;  // FILE[@OFFSET]
  int32_t tokens = QualityOptions().tokens;
  int32_t from = QualityOptions().from;
  bool copy = false;
  bool free_running = false;
  std::string profile;  // whose tiers --schemes may name; empty: none
  QualityOutputs outputs;
};

/// `arguments` outlives the parsing.
void AddQualityOptions(CLI::App& command, QualityArguments& arguments);

/// What can be checked without the model: InvalidArgument names the option.
absl::StatusOr<QualityOptions> ReadQualityOptions(const QualityArguments& arguments,
                                                  const Config& config);

/// `asymserve quality`: writes the table to `out`, JSON and plot to their files, progress to
/// standard error.
absl::Status RunQuality(const QualityOptions& options, const QualityOutputs& outputs,
                        const EngineSection& engine, const BackendFactory& make_backend,
                        std::ostream& out);

}  // namespace asymserve
