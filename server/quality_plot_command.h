#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace CLI {
class App;
}

namespace asymserve {

/// The command line of `asymserve quality-plot`, as written.
struct QualityPlotArguments {
  std::vector<std::string> json_paths;  // written by `asymserve quality --json`, of one model
  std::string out_path;                 // SVG
};

/// `arguments` outlives the parsing.
void AddQualityPlotOptions(CLI::App& command, QualityPlotArguments& arguments);

/// InvalidArgument names the option.
absl::Status CheckQualityPlotArguments(const QualityPlotArguments& arguments);

/// `asymserve quality-plot`: one picture (engine/quality/quality_plot.h) of all rows of the files,
/// written whole or not at all. FailedPrecondition names the files when they are of two models.
absl::Status RunQualityPlot(const QualityPlotArguments& arguments);

}  // namespace asymserve
