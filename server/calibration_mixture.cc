#include "server/calibration_mixture.h"

#include <fstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr char kList[] = "mixture.list";
constexpr char kFolder[] = "config/calibration";

}  // namespace

absl::StatusOr<std::vector<TextSource>> ReadMixture(const std::filesystem::path& folder) {
  const std::filesystem::path list = folder / kList;
  std::ifstream file(list);
  if (!file) return absl::NotFoundError(absl::StrCat("mixture: cannot read ", list.string()));
  std::vector<TextSource> texts;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    line.erase(line.find_last_not_of(" \t\r") + 1);
    if (line.empty() || line.front() == '#') continue;
    std::error_code ignored;
    if (!std::filesystem::is_regular_file(folder / line, ignored)) {
      return absl::NotFoundError(
          absl::StrCat(list.string(), ":", number, ": there is no file ", line));
    }
    texts.push_back({.name = line, .path = (folder / line).string(), .offset = 0});
  }
  if (texts.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(list.string(), ": lists no text"));
  }
  return texts;
}

std::vector<std::filesystem::path> MixtureFolders() {
  std::vector<std::filesystem::path> folders = {kFolder};
  std::error_code failed;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", failed);
  for (std::filesystem::path at = program; !failed && at.has_relative_path();
       at = at.parent_path()) {
    folders.push_back(at.parent_path() / kFolder);
  }
  return folders;
}

absl::StatusOr<std::vector<TextSource>> FindMixture(
    const std::vector<std::filesystem::path>& folders) {
  std::string names;
  for (const std::filesystem::path& folder : folders) {
    std::error_code ignored;
    if (std::filesystem::exists(folder / kList, ignored)) return ReadMixture(folder);
    absl::StrAppend(&names, names.empty() ? "" : ", ", folder.string());
  }
  return absl::NotFoundError(absl::StrCat("text: none given, and no calibration mixture in ", names,
                                          "; give --text FILE or --mixture FOLDER"));
}

}  // namespace asymserve
