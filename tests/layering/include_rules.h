#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace asymserve {

/// One row of the table of dependencies: what the files of a folder may include.
struct LayerRule {
  std::string_view folder;  // "engine/kv/"; the longest match decides
  /// Path prefixes inside the project, besides the folder itself: "engine/base/", or one header.
  std::vector<std::string_view> project;
  /// Prefixes of headers of libraries; standard C++ headers are free unless refused.
  std::vector<std::string_view> external;
  std::vector<std::string_view> refused;  // standard headers that are tempting and wrong here
};

/// What single files may include beyond their folder's row.
struct FileException {
  std::string_view file;
  std::vector<std::string_view> project, external;
};

struct LayerTable {
  std::vector<LayerRule> rules;
  std::vector<FileException> exceptions;
  LayerRule device_code;  // .cu and .cuh, wherever they are
};

/// The table of this project.
const LayerTable& ProjectLayers();

struct Include {
  int line;
  std::string name;  // as between the quotes or brackets; a macro's name for a computed include
};
std::vector<Include> ReadIncludes(std::string_view source);

/// "engine/kv/x.h:3: includes ... ", one for each include that the table does not allow. `path` is
/// relative to the project's root; a path under engine/, server/ or config/ without a row is itself
/// a violation.
std::vector<std::string> CheckIncludes(const LayerTable& table, std::string_view path,
                                       std::string_view source);

}  // namespace asymserve
