#include "engine/quality/text_source.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/mapped_file.h"
#include "engine/base/status.h"
#include "engine/model/json_document.h"
#include "engine/text/utf8.h"

namespace asymserve {
namespace {

constexpr std::string_view kJsonLines = ".jsonl";
constexpr std::string_view kBetweenRecords = "\n\n";
// The last tokens before a cut may be others than those of the whole text.
constexpr size_t kCutTokens = 32;

bool EndsCharacter(char next) {
  return (static_cast<uint8_t>(next) & 0xC0u) != 0x80u;
}

/// Bytes of the first `characters` characters of valid UTF-8; all of them if there are fewer.
size_t PrefixBytes(std::string_view text, int64_t characters) {
  size_t at = 0;
  while (at < text.size()) {
    if (EndsCharacter(text[at]) && characters-- == 0) break;
    ++at;
  }
  return at;
}

absl::StatusOr<std::string> StringOf(const nlohmann::json& value, const std::string& what) {
  if (!value.is_string()) return absl::InvalidArgumentError(absl::StrCat(what, " is no string"));
  return value.get<std::string>();
}

struct Record {
  std::optional<Problem> problem;
  std::string turn;  // where there is no problem
};

absl::StatusOr<Record> ParseRecord(std::string_view line, const std::string& where) {
  ASYMSERVE_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(line, where));
  Record record;
  if (const auto turns = object.find("turns"); turns != object.end()) {
    if (!turns->is_array() || turns->empty()) {
      return absl::InvalidArgumentError(absl::StrCat(where, ": turns is no list with an element"));
    }
    ASYMSERVE_ASSIGN_OR_RETURN(record.turn,
                               StringOf(turns->front(), absl::StrCat(where, ": turns[0]")));
    return record;
  }
  const auto question = object.find("question"), answer = object.find("answer");
  if (question == object.end() || answer == object.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": has neither question and answer nor turns"));
  }
  Problem& problem = record.problem.emplace();
  ASYMSERVE_ASSIGN_OR_RETURN(problem.question,
                             StringOf(*question, absl::StrCat(where, ": question")));
  ASYMSERVE_ASSIGN_OR_RETURN(problem.answer, StringOf(*answer, absl::StrCat(where, ": answer")));
  return record;
}

/// The records from the offset on, `count` at most.
absl::StatusOr<std::vector<Record>> ReadRecords(std::string_view file, const TextSource& source,
                                                size_t count) {
  std::vector<Record> list;
  int64_t line_number = 0, records = 0;
  while (!file.empty() && list.size() < count) {
    const size_t end = std::min(file.find('\n'), file.size());
    const std::string_view line = file.substr(0, end);
    file.remove_prefix(std::min(end + 1, file.size()));
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    if (records++ < source.offset) continue;
    ASYMSERVE_ASSIGN_OR_RETURN(Record record,
                               ParseRecord(line, absl::StrCat(source.path, ":", line_number)));
    list.push_back(std::move(record));
  }
  if (list.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.name, ": the file has ", records, " records"));
  }
  return list;
}

absl::StatusOr<std::string_view> Utf8Of(const MappedFile& file) {
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()),
                               file.bytes().size());
  const size_t valid = ValidUtf8Prefix(bytes);
  if (valid == bytes.size()) return bytes;
  return absl::InvalidArgumentError(absl::StrCat(file.path(), ": invalid UTF-8 at byte ", valid));
}

}  // namespace

absl::StatusOr<TextSource> ParseTextSource(std::string_view argument) {
  TextSource source;
  source.name = std::string(argument);
  const size_t at = argument.rfind('@');
  source.path = std::string(argument.substr(0, at));
  if (at != std::string_view::npos) {
    const std::string_view digits = argument.substr(at + 1);
    const char* const end = digits.data() + digits.size();
    const auto parsed = std::from_chars(digits.data(), end, source.offset);
    if (parsed.ec != std::errc() || parsed.ptr != end || source.offset < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("text '", source.name, "': '", std::string(digits),
                       "' is no offset; expected FILE or FILE@OFFSET, in characters"));
    }
  }
  if (source.path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("text '", source.name, "': names no file; expected FILE or FILE@OFFSET"));
  }
  return source;
}

std::string ProblemText(const Problem& problem) {
  return absl::StrCat("Question: ", problem.question, "\nAnswer: ", problem.answer);
}

absl::StatusOr<std::string> ReadText(const TextSource& source) {
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(source.path));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view bytes, Utf8Of(file));
  if (source.path.ends_with(kJsonLines)) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<Record> records,
                               ReadRecords(bytes, source, std::numeric_limits<size_t>::max()));
    std::string text;
    for (const Record& record : records) {
      if (!text.empty()) text += kBetweenRecords;
      text += record.problem ? ProblemText(*record.problem) : record.turn;
    }
    return text;
  }
  const size_t begin = PrefixBytes(bytes, source.offset);
  if (begin == bytes.size()) {
    const auto characters = std::count_if(bytes.begin(), bytes.end(), EndsCharacter);
    return absl::InvalidArgumentError(
        absl::StrCat(source.name, ": the file has ", characters, " characters"));
  }
  return std::string(bytes.substr(begin));
}

absl::StatusOr<std::vector<Problem>> ReadProblems(const TextSource& source, int32_t count) {
  std::vector<Problem> problems;
  if (!source.path.ends_with(kJsonLines)) return problems;
  ASYMSERVE_ASSIGN_OR_RETURN(const MappedFile file, MappedFile::Open(source.path));
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string_view bytes, Utf8Of(file));
  ASYMSERVE_ASSIGN_OR_RETURN(std::vector<Record> records,
                             ReadRecords(bytes, source, static_cast<size_t>(count)));
  for (Record& record : records) {
    if (record.problem) problems.push_back(*std::move(record.problem));
  }
  return problems;
}

absl::StatusOr<std::vector<int32_t>> ReadTokens(const TextSource& source,
                                                const Tokenizer& tokenizer, int32_t count) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, ReadText(source));
  const EncodeOptions plain = {.add_special = false};
  const auto wanted = static_cast<size_t>(count);
  for (int64_t characters = int64_t{8} * count + 1024;; characters *= 2) {
    const size_t bytes = PrefixBytes(text, characters);
    auto ids = tokenizer.Encode(std::string_view(text).substr(0, bytes), plain);
    if (!ids.ok()) return Annotate(ids.status(), source.name);
    if (bytes < text.size() && ids->size() < wanted + kCutTokens) continue;
    if (ids->size() < wanted) {
      return absl::InvalidArgumentError(
          absl::StrCat(source.name, ": has ", ids->size(), " tokens from there, need ", count));
    }
    ids->resize(wanted);
    return *std::move(ids);
  }
}

}  // namespace asymserve
