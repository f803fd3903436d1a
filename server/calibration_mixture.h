#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quality/text_source.h"

namespace asymserve {

/// The texts of a folder in the order of its file `mixture.list`: one name a line, '#' begins a
/// comment. Errors name the folder or the line.
absl::StatusOr<std::vector<TextSource>> ReadMixture(const std::filesystem::path& folder);

/// Folders in which the mixture that comes with the project may lie: config/calibration below the
/// working directory and below the folders that the program is in.
std::vector<std::filesystem::path> MixtureFolders();

/// The texts of the first of `folders` that has a mixture. NotFound lists them.
absl::StatusOr<std::vector<TextSource>> FindMixture(
    const std::vector<std::filesystem::path>& folders);

}  // namespace asymserve
