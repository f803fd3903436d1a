#include "server/quality_command.h"

#include <filesystem>
#include <span>

#include "CLI/CLI.hpp"
#include "absl/strings/str_cat.h"

#include "engine/base/atomic_file.h"
#include "engine/base/status.h"
#include "engine/quality/quality_json.h"
#include "engine/quality/quality_plot.h"
#include "server/output_path.h"
#include "server/progress_line.h"

namespace asymserve {
namespace {

absl::StatusOr<std::vector<QualityRow>> Evaluate(const QualityOptions& options, Backend& backend) {
  ProgressLine line;
  return EvaluateQuality(backend, options, [&line](const QualityProgress& progress) {
    const std::string scheme =
        progress.scheme > 0 ? absl::StrCat("scheme ", progress.scheme, "/", progress.schemes, " ")
                            : "";
    line.Show(absl::StrCat(scheme, progress.name, " on ", progress.text), progress.fraction);
  });
}

}  // namespace

void AddQualityOptions(CLI::App& command, QualityArguments& arguments) {
  command.add_option("--schemes", arguments.schemes, "KV schemes, as exact,kivi-2,fit-2/2")
      ->type_name("NAME,...")
      ->delimiter(',')
      ->required();
  command.add_option("--text", arguments.texts, "UTF-8 text from a character on, or .jsonl")
      ->type_name("FILE[@OFFSET]")
      ->take_all()
      ->required();
  command.add_option("--profile", arguments.profile, "whose tiers --schemes may name, too")
      ->type_name("FILE");
  command.add_option("--tokens", arguments.tokens, "tokens of each text")->capture_default_str();
  command.add_option("--from", arguments.from, "first position that counts")->capture_default_str();
  command.add_flag("--copy", arguments.copy, "also read the first half of each text twice");
  command.add_flag(
      "--free-running", arguments.free_running,
      "also generate: where greedy text leaves exact's, and whether answers are right");
  command.add_option("--json", arguments.outputs.json_path, "write the table as JSON")
      ->type_name("FILE");
  command.add_option("--plot", arguments.outputs.plot_path, "write a plot over bits per element")
      ->type_name("FILE.svg");
}

absl::StatusOr<QualityOptions> ReadQualityOptions(const QualityArguments& arguments,
                                                  const Config& config) {
  QualityOptions options;
  options.model_path = config.model.path;
  options.schemes = arguments.schemes;
  for (const std::string& text : arguments.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(TextSource source, ParseTextSource(text));
    options.texts.push_back(std::move(source));
  }
  options.profile_path = arguments.profile;
  options.tokens = arguments.tokens;
  options.from = arguments.from;
  options.copy = arguments.copy;
  if (arguments.free_running) options.free_running.emplace();
  ASYMSERVE_RETURN_IF_ERROR(CheckQualityOptions(options));
  ASYMSERVE_RETURN_IF_ERROR(CheckOutputPath("json", arguments.outputs.json_path));
  ASYMSERVE_RETURN_IF_ERROR(CheckOutputPath("plot", arguments.outputs.plot_path));
  return options;
}

absl::Status RunQuality(const QualityOptions& options, const QualityOutputs& outputs,
                        const EngineSection& engine, const BackendFactory& make_backend,
                        std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(engine));
  QualityResult result;
  result.model = std::filesystem::path(options.model_path).filename().string();
  ASYMSERVE_ASSIGN_OR_RETURN(result.rows, Evaluate(options, *backend));
  out << QualityTable(result.rows) << std::flush;
  if (!outputs.json_path.empty()) {
    const std::string json = QualityJson(result);
    ASYMSERVE_RETURN_IF_ERROR(
        WriteFileAtomically(outputs.json_path, std::as_bytes(std::span(json))));
  }
  if (outputs.plot_path.empty()) return absl::OkStatus();
  const std::string plot = QualityPlot(result);
  return WriteFileAtomically(outputs.plot_path, std::as_bytes(std::span(plot)));
}

}  // namespace asymserve
