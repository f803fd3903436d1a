#include "server/quality_command.h"

#include <span>

#include "absl/strings/str_cat.h"

#include "engine/base/atomic_file.h"
#include "engine/base/status.h"
#include "server/output_path.h"
#include "server/progress_line.h"

namespace asymserve {

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
  ASYMSERVE_RETURN_IF_ERROR(CheckQualityOptions(options));
  ASYMSERVE_RETURN_IF_ERROR(CheckOutputPath("json", arguments.json_path));
  return options;
}

absl::Status RunQuality(const QualityOptions& options, const std::string& json_path,
                        const EngineSection& engine, const BackendFactory& make_backend,
                        std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(engine));
  absl::StatusOr<std::vector<QualityRow>> rows;
  {
    ProgressLine line;
    rows = EvaluateQuality(*backend, options, [&line](const QualityProgress& progress) {
      const std::string scheme =
          progress.scheme > 0 ? absl::StrCat("scheme ", progress.scheme, "/", progress.schemes, " ")
                              : "";
      line.Show(absl::StrCat(scheme, progress.name, " on ", progress.text), progress.fraction);
    });
  }
  if (!rows.ok()) return rows.status();
  out << QualityTable(*rows) << std::flush;
  if (json_path.empty()) return absl::OkStatus();
  const std::string json = QualityJson(*rows);
  return WriteFileAtomically(json_path, std::as_bytes(std::span(json)));
}

}  // namespace asymserve
