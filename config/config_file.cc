#include "config/config_file.h"

#include "config/read_file.h"
#include "config/yaml_entries.h"

namespace asymserve {

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  return ReadRegularFile(path, kMaxYamlBytes);
}

}  // namespace asymserve
