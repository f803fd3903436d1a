#include "tests/support/file_io.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "engine/base/check.h"

namespace asymserve::testing {

void WriteFile(const std::string& path, std::string_view contents) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(contents.data(), static_cast<std::streamsize>(contents.size()));
  file.close();
  ASYMSERVE_CHECK(file.good());
}

void ReplaceFile(const std::string& path, std::string_view contents) {
  WriteFile(path + ".new", contents);
  std::error_code error;
  std::filesystem::rename(path + ".new", path, error);
  ASYMSERVE_CHECK(!error);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  ASYMSERVE_CHECK(file.is_open());
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace asymserve::testing
