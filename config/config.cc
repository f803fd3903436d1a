#include "config/config.h"

#include <vector>

#include "absl/strings/str_cat.h"

#include "config/config_file.h"
#include "config/option.h"
#include "config/violation.h"
#include "config/yaml_entries.h"
#include "engine/base/status.h"

namespace asymserve {

absl::StatusOr<Config> LoadConfig(const std::string& path) {
  if (path.empty()) return Config();
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, ReadConfigFile(path));
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
  return FindViolation(config).status;
}

}  // namespace asymserve
