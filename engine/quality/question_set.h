#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/quality/text_source.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

struct Question {
  std::vector<int32_t> tokens;  // behind the context
  std::string number;           // the right answer
};

/// Questions with numbers as answers, asked one at a time behind the same context.
struct QuestionSet {
  std::string test;
  int32_t tokens = 0;  // that context, question and answer may take together; 0: any number
  std::vector<int32_t> context;
  std::vector<Question> questions;
  int32_t answer_tokens = 0;  // the most that are generated
  std::string marker;         // stands before the answer's number
  std::string stop;           // ends an answer; empty: nothing does
};

/// Line retrieval: "The code of the red fox is 482." over and over, other animals, other codes, and
/// `questions` of the lines asked for, from the oldest to the newest; fewer where there are fewer
/// lines. `tokens` is a multiple of 64 and at least 128; the question and its answer stand in the
/// last page. A function of its arguments. InvalidArgument where that page is too small for the
/// tokenizer's tokens or `tokens` hold no line.
absl::StatusOr<QuestionSet> LineQuestions(const Tokenizer& tokenizer, int32_t tokens,
                                          int32_t questions);

/// Problems with worked answers that end in "#### <number>" (GSM8K): the first `shots` are the
/// context, the others are asked. Those whose answer has no such number, and those that together
/// with their context and answer take more than `max_tokens`, are left out.
absl::StatusOr<QuestionSet> ProblemQuestions(const Tokenizer& tokenizer,
                                             std::span<const Problem> problems, size_t shots,
                                             int32_t max_tokens);

/// Whether the first number behind the marker in `text`, which ends at `stop`, is the right one;
/// thousands commas and a final point do not count.
bool IsRight(const QuestionSet& set, const Question& question, std::string_view text);

}  // namespace asymserve
