#include "server/quality_command.h"

#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <span>
#include <system_error>

#include "absl/strings/str_cat.h"

#include "engine/base/atomic_file.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kTerminalInterval(200);
constexpr std::chrono::seconds kLogInterval(10);

/// One line that is overwritten on a terminal, a line now and then elsewhere.
class ProgressLine {
 public:
  ~ProgressLine() {
    if (shown_ && terminal_) std::cerr << "\r\x1b[K" << std::flush;
  }

  void Show(const QualityProgress& progress) {
    const Clock::time_point now = Clock::now();
    const bool due = now - last_ >= (terminal_ ? Clock::duration(kTerminalInterval) : kLogInterval);
    if (!due) return;
    last_ = now;
    shown_ = true;
    std::string line = absl::StrCat(
        progress.scheme > 0 ? absl::StrCat("scheme ", progress.scheme, "/", progress.schemes, " ")
                            : "",
        progress.name, " on ", progress.text, ", ", static_cast<int>(100 * progress.fraction),
        " %");
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    if (progress.fraction > 0) {
      const double left = elapsed * (1 - progress.fraction) / progress.fraction;
      absl::StrAppend(&line, ", ", static_cast<int64_t>(left + 0.5), " s left");
    }
    std::cerr << (terminal_ ? "\r\x1b[K" + line : line + "\n") << std::flush;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const Clock::time_point start_ = Clock::now();
  Clock::time_point last_ = terminal_ ? Clock::time_point() : start_;
  bool shown_ = false;
};

/// Catches a misspelt path before an evaluation of minutes.
absl::Status CheckJsonPath(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code ignored;
  if (!folder.empty() && !std::filesystem::is_directory(folder, ignored)) {
    return absl::InvalidArgumentError(
        absl::StrCat("json: ", path, ": no folder ", folder.string()));
  }
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat("json: ", path, " is a folder"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<QualityOptions> ReadQualityOptions(const QualityArguments& arguments,
                                                  const Config& config) {
  QualityOptions options;
  options.model_path = config.model.path;
  options.schemes = arguments.schemes;
  for (const std::string& text : arguments.texts) {
    ASYMSERVE_ASSIGN_OR_RETURN(TextSource source, ParseTextSource(text));
    options.texts.push_back(std::move(source));
  }
  options.tokens = arguments.tokens;
  options.from = arguments.from;
  options.copy = arguments.copy;
  ASYMSERVE_RETURN_IF_ERROR(CheckQualityOptions(options));
  ASYMSERVE_RETURN_IF_ERROR(CheckJsonPath(arguments.json_path));
  return options;
}

absl::Status RunQuality(const QualityOptions& options, const std::string& json_path,
                        const EngineSection& engine, const BackendFactory& make_backend,
                        std::ostream& out) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(engine));
  absl::StatusOr<std::vector<QualityRow>> rows;
  {
    ProgressLine line;
    rows = EvaluateQuality(*backend, options,
                           [&line](const QualityProgress& progress) { line.Show(progress); });
  }
  if (!rows.ok()) return rows.status();
  out << QualityTable(*rows) << std::flush;
  if (json_path.empty()) return absl::OkStatus();
  const std::string json = QualityJson(*rows);
  return WriteFileAtomically(json_path, std::as_bytes(std::span(json)));
}

}  // namespace asymserve
