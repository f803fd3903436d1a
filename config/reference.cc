#include "config/reference.h"

#include <vector>

#include "absl/status/statusor.h"

#include "config/yaml_entries.h"
#include "engine/base/check.h"

namespace asymserve {
namespace {

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.push_back(text.substr(0, end));
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

/// Removes what stands before the text of a comment; false when the line is none.
bool TakeComment(std::string_view& line) {
  const size_t mark = line.find_first_not_of(' ');
  if (mark == std::string_view::npos || line[mark] != '#') return false;
  line.remove_prefix(mark + 1);
  if (line.starts_with(' ')) line.remove_prefix(1);
  return true;
}

}  // namespace

std::map<std::string, std::string> ReferenceComments() {
  const std::vector<std::string_view> lines = Lines(ReferenceText());
  const absl::StatusOr<std::vector<YamlEntry>> entries =
      ReadYamlEntries(ReferenceText(), "config/asymserve.yaml");
  ASYMSERVE_CHECK(entries.ok());
  std::map<std::string, std::string> comments;
  for (const YamlEntry& entry : *entries) {
    std::string comment;
    for (auto at = static_cast<size_t>(entry.line) - 1; at > 0; --at) {
      std::string_view line = lines[at - 1];
      if (!TakeComment(line)) break;
      if (!comment.empty()) comment.insert(0, 1, '\n');
      comment.insert(0, line);
    }
    if (!comment.empty()) comments[entry.key] = std::move(comment);
  }
  return comments;
}

}  // namespace asymserve
