#pragma once

#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "config/config.h"
#include "server/plan_report.h"
#include "server/serve.h"

namespace CLI {
class App;
}

namespace asymserve {

/// The command line of `asymserve plan`, as written.
struct PlanArguments {
  std::string shapes_path;  // instead of a model
  std::vector<std::string> schemes;
  std::string memory;  // "80GiB"; empty: the configuration's
  std::optional<int32_t> context, prompt, output;
  std::string trace_path;
  std::optional<int64_t> sequences;
  std::optional<double> max_kl;
  std::string json_path;  // "-": standard output, instead of the table
};

/// `arguments` outlives the parsing.
void AddPlanOptions(CLI::App& command, PlanArguments& arguments);

struct PlanCommandOptions {
  std::string model_path;  // or shapes
  std::string shapes_path;
  std::string profile;
  PlanHead head;
  bool has_lengths = false;   // --prompt, --output or --trace
  bool is_available = false;  // the memory is what there is, of the device that is chosen
  std::string json_path;
};

/// What can be checked without the model: InvalidArgument names the option, or the trace's line.
absl::StatusOr<PlanCommandOptions> ReadPlanOptions(const PlanArguments& arguments,
                                                   const Config& config);

/// `asymserve plan`: writes the table to `out` and JSON to its file. Reads the head of the model,
/// not its weights.
absl::Status RunPlan(const PlanCommandOptions& options, const EngineSection& engine,
                     const BackendFactory& make_backend, std::ostream& out);

}  // namespace asymserve
