#include "server/quality_plot_command.h"

#include <span>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "engine/base/atomic_file.h"
#include "engine/base/status.h"
#include "engine/quality/quality_json.h"
#include "engine/quality/quality_plot.h"
#include "server/output_path.h"

namespace asymserve {

void AddQualityPlotOptions(CLI::App& command, QualityPlotArguments& arguments) {
  command.add_option("json", arguments.json_paths, "files that quality --json wrote")
      ->type_name("FILE")
      ->required();
  command.add_option("--out", arguments.out_path, "the plot to write")
      ->type_name("FILE.svg")
      ->required();
}

absl::Status CheckQualityPlotArguments(const QualityPlotArguments& arguments) {
  return CheckOutputPath("out", arguments.out_path);
}

absl::Status RunQualityPlot(const QualityPlotArguments& arguments) {
  QualityResult all;
  for (const std::string& path : arguments.json_paths) {
    ASYMSERVE_ASSIGN_OR_RETURN(QualityResult result, ReadQualityJson(path));
    if (all.rows.empty()) all.model = result.model;
    if (result.model != all.model) {
      return absl::FailedPreconditionError(absl::StrCat(path, ": is of model '", result.model,
                                                        "', ", arguments.json_paths.front(),
                                                        " of '", all.model, "'"));
    }
    if (result.rows.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("no rows in ", path));
    }
    all.rows.insert(all.rows.end(), result.rows.begin(), result.rows.end());
  }
  const std::string plot = QualityPlot(all);
  return WriteFileAtomically(arguments.out_path, std::as_bytes(std::span(plot)));
}

}  // namespace asymserve
