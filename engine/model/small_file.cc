#include "engine/model/small_file.h"

#include <filesystem>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/base/mapped_file.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr size_t kMaxBytes = 64 << 20;

}  // namespace

absl::StatusOr<std::optional<std::string>> ReadSmallFile(const std::string& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  if (file.bytes().size() > kMaxBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", file.bytes().size(), " bytes, at most ", kMaxBytes));
  }
  return std::string(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
}

}  // namespace asymserve
