#include "engine/model/weight_file.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/model/gguf_file.h"
#include "engine/model/hf_folder.h"

namespace asymserve {

absl::StatusOr<std::unique_ptr<WeightFile>> OpenWeightFile(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) return OpenHfFolder(path);
  ASYMSERVE_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  auto opened = OpenGgufFile(std::move(file));
  if (!opened.ok()) return Annotate(opened.status(), path);
  return opened;
}

}  // namespace asymserve
