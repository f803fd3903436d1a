#pragma once

#include <string>
#include <string_view>

namespace asymserve::testing {

/// Writes or reads a whole file; a failure is a broken test environment and aborts.
void WriteFile(const std::string& path, std::string_view contents);
/// WriteFile for files that somebody watches: nobody sees half of it.
void ReplaceFile(const std::string& path, std::string_view contents);
std::string ReadFile(const std::string& path);

}  // namespace asymserve::testing
