#include "config/config.h"

#include <filesystem>
#include <fstream>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"

#include "config/option.h"
#include "config/yaml_entries.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

/// A regular file of at most kMaxYamlBytes + 1 bytes; more is not read.
absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    return absl::NotFoundError(absl::StrCat(path, ": ", error ? error.message() : "not found"));
  }
  if (!std::filesystem::is_regular_file(status)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": not a regular file"));
  }
  std::ifstream stream(path, std::ios::binary);
  std::string text(kMaxYamlBytes + 1, '\0');
  stream.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!stream.is_open() || stream.bad()) {
    return absl::PermissionDeniedError(absl::StrCat(path, ": cannot be read"));
  }
  text.resize(static_cast<size_t>(stream.gcount()));
  return text;
}

/// Whether two HOST:PORT cannot both be bound. Port 0 takes any free port.
bool SamePort(std::string_view a, std::string_view b) {
  return a == b && !a.empty() && !a.ends_with(":0");
}

}  // namespace

absl::StatusOr<Config> LoadConfig(const std::string& path) {
  if (path.empty()) return Config();
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  return ParseConfig(text, path);
}

absl::StatusOr<Config> ParseConfig(std::string_view text, const std::string& file) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<YamlEntry> entries, ReadYamlEntries(text, file));
  Config config;
  for (const YamlEntry& entry : entries) {
    ASYMSERVE_RETURN_IF_ERROR(Annotate(Assign(config, entry), absl::StrCat(file, ":", entry.line)));
  }
  return config;
}

absl::Status ApplyOverride(Config& config, std::string_view assignment) {
  const size_t equals = assignment.find('=');
  if (equals == std::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("--set: expected KEY=VALUE, got ", Quoted(assignment)));
  }
  YamlEntry entry;
  entry.key = std::string(assignment.substr(0, equals));
  entry.text = std::string(assignment.substr(equals + 1));
  return Annotate(Assign(config, entry), "--set");
}

absl::Status ValidateConfig(const Config& config) {
  for (const Option& option : Options()) {
    ASYMSERVE_RETURN_IF_ERROR(CheckValue(config, option));
  }
  if (config.engine.step_tokens < config.engine.max_running) {
    return absl::InvalidArgumentError(
        absl::StrCat("engine.step_tokens: expected at least engine.max_running (",
                     config.engine.max_running, "), got ", config.engine.step_tokens,
                     "; each running sequence decodes one token in a step"));
  }
  if (SamePort(config.server.address, config.metrics.address)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "metrics.address: expected another than server.address, got ", config.metrics.address));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
