#include "engine/quality/question_set.h"

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/base/philox.h"
#include "engine/base/status.h"
#include "engine/kv/codec.h"

namespace asymserve {
namespace {

constexpr uint64_t kSeed = 20250711;
constexpr int32_t kLineAnswerTokens = 8;
constexpr int32_t kProblemAnswerTokens = 160;
constexpr char kAnswerMarker[] = "####";
constexpr std::array kColors = {"red",   "blue",  "green", "black",  "white", "brown",
                                "grey",  "pink",  "gold",  "silver", "young", "old",
                                "small", "large", "quick", "slow",   "quiet", "loud",
                                "happy", "sad",   "brave", "shy",    "wild",  "tame"};
constexpr std::array kAnimals = {"fox",   "dog",   "cat",    "horse",  "bear",   "wolf",
                                 "lion",  "tiger", "mouse",  "eagle",  "snake",  "frog",
                                 "goat",  "sheep", "duck",   "whale",  "shark",  "crab",
                                 "camel", "zebra", "monkey", "rabbit", "spider", "turtle"};

using Ids = std::vector<int32_t>;

void Append(const Ids& ids, Ids& out) {
  out.insert(out.end(), ids.begin(), ids.end());
}

/// The number at the start of `text` behind blanks and "$", without commas and a final point.
std::string LeadingNumber(std::string_view text) {
  std::string number;
  for (const char c : text) {
    if (number.empty() && (c == ' ' || c == '$' || c == '\n')) continue;
    if (c == ',' && !number.empty()) continue;
    const bool part = (c >= '0' && c <= '9') || c == '.' || (c == '-' && number.empty());
    if (!part) break;
    number += c;
  }
  while (number.ends_with('.')) number.pop_back();
  return number;
}

struct Line {
  size_t begin = 0;  // in the tokens of all lines
  std::string key, number;
};

}  // namespace

absl::StatusOr<QuestionSet> LineQuestions(const Tokenizer& tokenizer, int32_t tokens,
                                          int32_t questions) {
  const EncodeOptions plain = {.add_special = false};
  const auto wanted = static_cast<size_t>(tokens - kKvPageTokens);
  QuestionSet set;
  set.test = "lines";
  set.tokens = tokens;
  set.answer_tokens = kLineAnswerTokens;
  Ids all;
  std::vector<Line> lines;
  constexpr size_t kKeys = kColors.size() * kAnimals.size();
  for (size_t i = 0; i < kKeys && all.size() < wanted; ++i) {
    const size_t key = i * 343 % kKeys;  // 343 and 576 have no common divisor: every key once
    const auto number = static_cast<int>(100 + 900 * PhiloxUniform(kSeed, i));
    Line line = {all.size(),
                 absl::StrCat("The code of the ", kColors[key / kAnimals.size()], " ",
                              kAnimals[key % kAnimals.size()], " is"),
                 absl::StrCat(number)};
    ASYMSERVE_ASSIGN_OR_RETURN(
        const Ids ids, tokenizer.Encode(absl::StrCat(line.key, " ", line.number, ".\n"), plain));
    Append(ids, all);
    lines.push_back(std::move(line));
  }
  const size_t cut = all.size() - std::min(wanted, all.size());
  std::erase_if(lines, [&](const Line& line) { return line.begin < cut; });
  if (all.size() < wanted || lines.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("line retrieval: ", lines.size(), " lines in ", tokens, " tokens"));
  }
  set.context.assign(all.begin() + static_cast<std::ptrdiff_t>(cut), all.end());
  const size_t count = std::min(static_cast<size_t>(questions), lines.size());
  for (size_t i = 0; i < count; ++i) {
    const Line& line = lines[i * lines.size() / count];
    ASYMSERVE_ASSIGN_OR_RETURN(Ids ids, tokenizer.Encode(line.key, plain));
    if (ids.size() + kLineAnswerTokens > static_cast<size_t>(kKvPageTokens)) {
      return absl::InvalidArgumentError(
          absl::StrCat("line retrieval: a question has ", ids.size(), " tokens"));
    }
    set.questions.push_back({std::move(ids), line.number});
  }
  return set;
}

absl::StatusOr<QuestionSet> ProblemQuestions(const Tokenizer& tokenizer,
                                             std::span<const Problem> problems, size_t shots,
                                             int32_t max_tokens) {
  QuestionSet set;
  set.test = "answers";
  set.answer_tokens = kProblemAnswerTokens;
  set.marker = kAnswerMarker;
  set.stop = "Question:";
  if (problems.size() <= shots) return set;
  const EncodeOptions plain = {.add_special = false};
  std::string context;
  for (const Problem& problem : problems.first(shots)) context += ProblemText(problem) + "\n\n";
  ASYMSERVE_ASSIGN_OR_RETURN(set.context, tokenizer.Encode(context, plain));
  for (const Problem& problem : problems.subspan(shots)) {
    const size_t marker = problem.answer.rfind(kAnswerMarker);
    if (marker == std::string::npos) continue;
    Question question;
    question.number =
        LeadingNumber(std::string_view(problem.answer).substr(marker + set.marker.size()));
    ASYMSERVE_ASSIGN_OR_RETURN(
        question.tokens,
        tokenizer.Encode(absl::StrCat("Question: ", problem.question, "\nAnswer:"), plain));
    const size_t needed = set.context.size() + question.tokens.size() + kProblemAnswerTokens;
    if (question.number.empty() || needed > static_cast<size_t>(max_tokens)) continue;
    set.questions.push_back(std::move(question));
  }
  return set;
}

bool IsRight(const QuestionSet& set, const Question& question, std::string_view text) {
  if (!set.stop.empty()) text = text.substr(0, text.find(set.stop));
  const size_t marker = text.find(set.marker);
  if (marker == std::string_view::npos) return false;
  return LeadingNumber(text.substr(marker + set.marker.size())) == question.number;
}

}  // namespace asymserve
