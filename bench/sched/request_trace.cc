#include "bench/sched/request_trace.h"

#include <charconv>
#include <chrono>
#include <fstream>
#include <iterator>
#include <optional>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr std::string_view kAzureHeader = "TIMESTAMP,ContextTokens,GeneratedTokens";
constexpr std::string_view kCompactHeader = "milliseconds,prompt_tokens,generated_tokens";
constexpr int64_t kMaxTokens = 1 << 24;
constexpr int64_t kMaxMilliseconds = int64_t{1} << 40;  // 35 years
constexpr size_t kShown = 60;                           // characters of a broken line

/// Digits only.
std::optional<int64_t> Number(std::string_view text) {
  if (text.empty() || text.front() == '-') return std::nullopt;
  int64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || stop != end) return std::nullopt;
  return value;
}

/// "2023-11-16 18:15:46.6805900" as microseconds since 1970; one to nine digits of a second.
std::optional<int64_t> Timestamp(std::string_view text) {
  constexpr std::string_view kForm = "dddd-dd-dd dd:dd:dd.d";
  if (text.size() < kForm.size() || text.size() > kForm.size() + 8) return std::nullopt;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit = text[i] >= '0' && text[i] <= '9';
    const char wanted = i < kForm.size() ? kForm[i] : 'd';
    if (wanted == 'd' ? !digit : text[i] != wanted) return std::nullopt;
  }
  const auto part = [&](size_t at, size_t count) {
    return static_cast<int32_t>(*Number(text.substr(at, count)));
  };
  const std::chrono::year_month_day date{std::chrono::year(part(0, 4)),
                                         std::chrono::month(static_cast<uint32_t>(part(5, 2))),
                                         std::chrono::day(static_cast<uint32_t>(part(8, 2)))};
  if (!date.ok() || part(11, 2) > 23 || part(14, 2) > 59 || part(17, 2) > 59) return std::nullopt;
  std::string fraction(text.substr(20));
  fraction.resize(6, '0');
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const int64_t seconds = ((days * 24 + part(11, 2)) * 60 + part(14, 2)) * 60 + part(17, 2);
  return seconds * 1'000'000 + *Number(fraction);
}

class TraceParser {
 public:
  explicit TraceParser(const std::string& name) : name_(name) {}

  absl::Status Header(std::string_view line) {
    number_ = 1;
    azure_ = line == kAzureHeader;
    if (azure_ || line == kCompactHeader) return absl::OkStatus();
    return Bad(line, absl::StrCat("expected the columns ", std::string(kAzureHeader), " or ",
                                  std::string(kCompactHeader)));
  }

  absl::Status Row(std::string_view line) {
    ++number_;
    const size_t first = line.find(',');
    const size_t second = first == line.npos ? line.npos : line.find(',', first + 1);
    if (second == line.npos || line.find(',', second + 1) != line.npos) {
      return Bad(line, "expected three fields");
    }
    const std::string_view time_text = line.substr(0, first);
    std::optional<int64_t> time = azure_ ? Timestamp(time_text) : Number(time_text);
    if (!time || (!azure_ && *time > kMaxMilliseconds)) {
      return Bad(line, azure_ ? "no time of the form 2023-11-16 18:15:46.6805900"
                              : "the milliseconds are not a whole number up to 2^40");
    }
    if (!azure_) *time *= 1000;
    const auto prompt = Number(line.substr(first + 1, second - first - 1));
    const auto output = Number(line.substr(second + 1));
    for (const auto& tokens : {prompt, output}) {
      if (!tokens || *tokens < 1 || *tokens > kMaxTokens) {
        return Bad(line, absl::StrCat("numbers of tokens are 1 to ", kMaxTokens));
      }
    }
    if (rows_.empty()) start_ = *time;
    const int64_t at = *time - start_;
    if (at < (rows_.empty() ? 0 : rows_.back().at_us)) {
      return Bad(line, "earlier than the line before");
    }
    rows_.push_back({at, static_cast<int32_t>(*prompt), static_cast<int32_t>(*output)});
    return absl::OkStatus();
  }

  std::vector<TraceRow> Take() { return std::move(rows_); }

 private:
  absl::Status Bad(std::string_view line, const std::string& why) const {
    return absl::InvalidArgumentError(absl::StrCat(name_, ":", number_, ": ", why, ", got '",
                                                   std::string(line.substr(0, kShown)), "'"));
  }

  const std::string& name_;
  int64_t number_ = 0;
  bool azure_ = false;
  int64_t start_ = 0;
  std::vector<TraceRow> rows_;
};

}  // namespace

absl::StatusOr<std::vector<TraceRow>> ParseTrace(std::string_view text, const std::string& name) {
  TraceParser parser(name);
  bool header = true;
  while (!text.empty() || header) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    const absl::Status status = header ? parser.Header(line) : parser.Row(line);
    if (!status.ok()) return status;
    header = false;
  }
  std::vector<TraceRow> rows = parser.Take();
  if (rows.empty()) return absl::InvalidArgumentError(absl::StrCat(name, ": no requests"));
  return rows;
}

absl::StatusOr<std::vector<TraceRow>> ReadTrace(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  const std::string text(std::istreambuf_iterator<char>(file), {});
  if (file.bad()) return absl::UnavailableError(absl::StrCat(path, ": reading failed"));
  return ParseTrace(text, path);
}

}  // namespace asymserve
