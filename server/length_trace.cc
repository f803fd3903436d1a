#include "server/length_trace.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "config/scalar.h"
#include "config/yaml_entries.h"
#include "engine/base/mapped_file.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr std::string_view kHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr int32_t kMostTokens = 1 << 24;

absl::Status Bad(const std::string& file, int64_t line, const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat(file, ":", line, ": ", why));
}

/// YYYY-MM-DD hh:mm:ss, and a fraction or not.
bool IsTimestamp(std::string_view text) {
  constexpr std::string_view kForm = "0000-00-00 00:00:00";
  if (text.size() < kForm.size()) return false;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (size_t i = 0; i < kForm.size(); ++i) {
    if (kForm[i] == '0' ? !is_digit(text[i]) : text[i] != kForm[i]) return false;
  }
  const std::string_view rest = text.substr(kForm.size());
  if (rest.empty()) return true;
  return rest.size() > 1 && rest[0] == '.' && std::all_of(rest.begin() + 1, rest.end(), is_digit);
}

struct Lengths {
  std::vector<int32_t> prompts, outputs;
};

absl::Status ParseLine(std::string_view line, const std::string& file, int64_t number,
                       Lengths& lengths) {
  const size_t first = line.find(',');
  const size_t second =
      first == std::string_view::npos ? std::string_view::npos : line.find(',', first + 1);
  if (second == std::string_view::npos || line.find(',', second + 1) != std::string_view::npos) {
    return Bad(file, number, absl::StrCat("expected three fields, got ", Quoted(line)));
  }
  const std::string_view time = line.substr(0, first);
  if (!IsTimestamp(time)) {
    return Bad(file, number,
               absl::StrCat("expected a time as 2023-11-16 18:17:03.97, got ", Quoted(time)));
  }
  const struct {
    std::string_view name, text;
    int32_t least;
    std::vector<int32_t>& lengths;
  } kFields[] = {{"ContextTokens", line.substr(first + 1, second - first - 1), 1, lengths.prompts},
                 {"GeneratedTokens", line.substr(second + 1), 0, lengths.outputs}};
  for (const auto& field : kFields) {
    const std::optional<int32_t> value = ParseInt32(field.text);
    if (!value.has_value() || *value < field.least || *value > kMostTokens) {
      return Bad(file, number,
                 absl::StrCat(std::string(field.name), ": expected ", field.least, " to ",
                              kMostTokens, ", got ", Quoted(field.text)));
    }
    field.lengths.push_back(*value);
  }
  return absl::OkStatus();
}

int64_t Mean(const std::vector<int32_t>& values) {
  double sum = 0;
  for (const int32_t value : values) sum += value;
  return std::llround(sum / static_cast<double>(values.size()));
}

/// The smallest value that at least 99 % are no greater than.
int64_t Percentile99(std::vector<int32_t> values) {
  const size_t rank = (values.size() * 99 + 99) / 100;
  const auto at = values.begin() + static_cast<std::ptrdiff_t>(rank) - 1;
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

absl::StatusOr<TraceLengths> ParseLengthTrace(std::string_view text, const std::string& file) {
  Lengths lengths;
  int64_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (++number == 1) {
      if (line != kHeader) {
        return Bad(file, 1,
                   absl::StrCat("expected ", std::string(kHeader), ", got ", Quoted(line)));
      }
      continue;
    }
    ASYMSERVE_RETURN_IF_ERROR(ParseLine(line, file, number, lengths));
  }
  if (lengths.prompts.empty()) return Bad(file, number + 1, "no requests");
  TraceLengths result;
  result.requests = static_cast<int64_t>(lengths.prompts.size());
  result.mean_prompt = Mean(lengths.prompts);
  result.mean_output = Mean(lengths.outputs);
  result.p99_prompt = Percentile99(std::move(lengths.prompts));
  result.p99_output = Percentile99(std::move(lengths.outputs));
  return result;
}

absl::StatusOr<TraceLengths> ReadLengthTrace(const std::string& path) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(path));
  const auto* text = reinterpret_cast<const char*>(file.bytes().data());
  return ParseLengthTrace({text, file.bytes().size()}, path);
}

}  // namespace asymserve
