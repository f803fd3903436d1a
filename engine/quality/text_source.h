#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/text/tokenizer.h"

namespace asymserve {

/// A text of the command line, `FILE[@OFFSET]`.
struct TextSource {
  std::string name;  // as given
  std::string path;
  int64_t offset = 0;  // Unicode characters; records of a .jsonl file
};

/// InvalidArgument when what follows the last '@' is no number; a file with '@' in its name is
/// given as NAME@0.
absl::StatusOr<TextSource> ParseTextSource(std::string_view argument);

/// The text from the offset on. A file whose name ends in .jsonl has one JSON object a line, which
/// becomes "Question: <question>\nAnswer: <answer>" (GSM8K) or, where there are "turns"
/// (Spec-Bench), the first of them; a blank line is put between two. Any other file is UTF-8.
/// Errors name the file, and the byte that is not UTF-8 or the line that is no such object.
absl::StatusOr<std::string> ReadText(const TextSource& source);

/// A record with a question and its answer.
struct Problem {
  std::string question, answer;
};

/// "Question: <question>\nAnswer: <answer>".
std::string ProblemText(const Problem& problem);

/// The first `count` records of a .jsonl file from the offset on that have both, or fewer where it
/// ends or a record has turns; none of any other file. Errors as ReadText.
absl::StatusOr<std::vector<Problem>> ReadProblems(const TextSource& source, int32_t count);

/// The first `count` tokens of the text, no control tokens added. InvalidArgument says how many
/// there are when they are fewer.
absl::StatusOr<std::vector<int32_t>> ReadTokens(const TextSource& source,
                                                const Tokenizer& tokenizer, int32_t count);

}  // namespace asymserve
