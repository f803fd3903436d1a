#include "config/config_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "config/config_file.h"
#include "config/violation.h"
#include "config/yaml_entries.h"
#include "engine/base/status.h"

namespace asymserve {

absl::StatusOr<Config> ReadSource(const ConfigSource& source) {
  ASYMSERVE_ASSIGN_OR_RETURN(Config config, LoadConfig(source.path));
  for (const std::string& assignment : source.overrides) {
    ASYMSERVE_RETURN_IF_ERROR(ApplyOverride(config, assignment));
  }
  return config;
}

absl::Status CheckSource(const ConfigSource& source, const Config& config) {
  const Violation violation = FindViolation(config);
  if (violation.status.ok()) return absl::OkStatus();
  const std::string origin = FindOrigin(source, violation.keys);
  return origin.empty() ? violation.status : Annotate(violation.status, origin);
}

std::string FindOrigin(const ConfigSource& source, std::span<const std::string_view> keys) {
  std::vector<YamlEntry> entries;
  if (!source.path.empty()) {
    const absl::StatusOr<std::string> text = ReadConfigFile(source.path);
    if (text.ok()) {
      absl::StatusOr<std::vector<YamlEntry>> read = ReadYamlEntries(*text, source.path);
      if (read.ok()) entries = *std::move(read);
    }
  }
  for (const std::string_view key : keys) {
    const bool overridden = std::any_of(
        source.overrides.begin(), source.overrides.end(), [&](const std::string& assignment) {
          return assignment.starts_with(absl::StrCat(std::string(key), "="));
        });
    if (overridden) return "--set";
    for (const YamlEntry& entry : entries) {
      if (entry.key == key) return absl::StrCat(source.path, ":", entry.line);
    }
  }
  return "";
}

}  // namespace asymserve
