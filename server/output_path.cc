#include "server/output_path.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace asymserve {

absl::Status CheckOutputPath(std::string_view option, const std::string& path) {
  const std::string prefix = absl::StrCat(std::string(option), ": ", path);
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code ignored;
  if (!folder.empty() && !std::filesystem::is_directory(folder, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(prefix, ": no folder ", folder.string()));
  }
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(prefix, " is a folder"));
  }
  return absl::OkStatus();
}

}  // namespace asymserve
