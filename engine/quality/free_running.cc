#include "engine/quality/free_running.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/base/status.h"
#include "engine/quality/copy_loss.h"
#include "engine/quality/quality_metrics.h"

namespace asymserve {
namespace {

constexpr int64_t kStepWork = 8;  // a token alone takes the time of so many in a page

int64_t WorkOf(const QuestionSet& set) {
  int64_t work = static_cast<int64_t>(set.context.size());
  for (const Question& question : set.questions) {
    work += static_cast<int64_t>(question.tokens.size()) + kStepWork * set.answer_tokens;
    if (set.tokens == 0) work += static_cast<int64_t>(set.context.size());  // read once more
  }
  return work;
}

/// Tokens before the first difference.
size_t Agreement(std::span<const int32_t> a, std::span<const int32_t> b) {
  const auto [first, second] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  return static_cast<size_t>(first - a.begin());
}

int64_t EqualTokens(std::span<const int32_t> a, std::span<const int32_t> b) {
  int64_t equal = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) equal += a[i] == b[i] ? 1 : 0;
  return equal;
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> Continue(
    PseudoDecoder& decoder, int32_t at, std::span<const int32_t> prompt, int32_t count,
    const std::function<bool(std::span<const int32_t> generated)>& stop) {
  std::vector<int32_t> generated;
  int32_t top = 0;
  bool finite = true;
  const auto choose = [&](int32_t, std::span<const float> logits) {
    finite = std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
    top = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  };
  ASYMSERVE_RETURN_IF_ERROR(decoder.Extend(at, prompt, choose));
  for (;;) {
    if (!finite) return absl::InternalError("greedy text: logits are not finite");
    generated.push_back(top);
    const bool full = generated.size() == static_cast<size_t>(count);
    if (full || (stop && stop(generated))) return generated;
    ASYMSERVE_RETURN_IF_ERROR(decoder.Extend(decoder.length(), std::span(&top, 1), choose));
  }
}

absl::StatusOr<FreeRunner> FreeRunner::Create(const FreeRunningOptions& options,
                                              const Tokenizer& tokenizer,
                                              std::span<const int32_t> text,
                                              std::span<const Problem> problems, bool lines,
                                              int32_t max_tokens) {
  FreeRunner runner(tokenizer, text);
  runner.prompts_ = options.prompts;
  runner.prompt_tokens_ = static_cast<int32_t>(text.size()) / 2;
  runner.tokens_ = std::min(options.tokens, max_tokens - runner.prompt_tokens_);
  runner.longest_ = runner.prompt_tokens_ + runner.tokens_;
  for (const int32_t tokens : options.line_tokens) {
    if (!lines || tokens > max_tokens) continue;
    ASYMSERVE_ASSIGN_OR_RETURN(QuestionSet set, LineQuestions(tokenizer, tokens, options.lines));
    runner.longest_ = std::max(runner.longest_, tokens);
    runner.sets_.push_back(std::move(set));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(
      QuestionSet set,
      ProblemQuestions(tokenizer, problems, static_cast<size_t>(options.shots), max_tokens));
  for (const Question& question : set.questions) {
    const size_t asked = set.context.size() + question.tokens.size();
    runner.longest_ = std::max(runner.longest_, static_cast<int32_t>(asked) + set.answer_tokens);
  }
  if (!set.questions.empty()) runner.sets_.push_back(std::move(set));
  for (const int32_t tokens : options.copy_tokens) {
    if (tokens > max_tokens || static_cast<size_t>(tokens) / 2 > text.size()) continue;
    runner.copy_tokens_.push_back(tokens);
    runner.longest_ = std::max(runner.longest_, tokens);
  }
  return runner;
}

int64_t FreeRunner::work() const {
  int64_t work = int64_t{prompts_} * (prompt_tokens_ + kStepWork * tokens_);
  for (const QuestionSet& set : sets_) work += WorkOf(set);
  for (const int32_t tokens : copy_tokens_) work += tokens;
  return work;
}

std::span<const int32_t> FreeRunner::Prompt(int32_t index) const {
  const int64_t room = static_cast<int64_t>(text_.size()) - prompt_tokens_;
  return text_.subspan(static_cast<size_t>(index * room / prompts_),
                       static_cast<size_t>(prompt_tokens_));
}

absl::StatusOr<double> FreeRunner::Score(PseudoDecoder& decoder, const QuestionSet& set) const {
  const auto at = static_cast<int32_t>(set.context.size());
  const auto answered = [&](std::span<const int32_t> ids) {
    if (tokenizer_->IsEnd(ids.back())) return true;
    return !set.stop.empty() && Decode(*tokenizer_, ids, true).find(set.stop) != std::string::npos;
  };
  int32_t right = 0;
  decoder.Clear();
  for (const Question& question : set.questions) {
    if (decoder.length() < at || !decoder.CanExtend(at)) {
      decoder.Clear();
      ASYMSERVE_RETURN_IF_ERROR(
          decoder.Extend(0, set.context, [](int32_t, std::span<const float>) {}));
    }
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<int32_t> answer,
                               Continue(decoder, at, question.tokens, set.answer_tokens, answered));
    if (IsRight(set, question, Decode(*tokenizer_, answer, true))) ++right;
  }
  decoder.Clear();
  return static_cast<double>(right) / static_cast<double>(set.questions.size());
}

absl::Status FreeRunner::RunExact(PseudoDecoder& exact, const ProgressSink& progress) {
  int64_t work = 0;
  const auto add = [&](int64_t done) {
    work += done;
    if (progress) progress(work);
  };
  const auto ended = [&](std::span<const int32_t> ids) { return tokenizer_->IsEnd(ids.back()); };
  for (int32_t i = 0; i < prompts_; ++i) {
    exact.Clear();
    ASYMSERVE_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                               Continue(exact, 0, Prompt(i), tokens_, ended));
    continuations_.push_back(std::move(ids));
    add(prompt_tokens_ + kStepWork * tokens_);
  }
  bool judged = !sets_.empty();
  for (const QuestionSet& set : sets_) {
    ASYMSERVE_ASSIGN_OR_RETURN(const double score, Score(exact, set));
    exact_scores_.push_back(score);
    judged = judged && score >= AnswerScore::kLeast;
    add(WorkOf(set));
  }
  for (const int32_t tokens : copy_tokens_) {
    if (judged) break;
    ASYMSERVE_ASSIGN_OR_RETURN(const double loss, CopyLoss(exact, Passage(tokens), nullptr));
    exact_copies_.push_back(loss);
    add(tokens);
  }
  exact.Clear();
  return absl::OkStatus();
}

absl::StatusOr<FreeRunning> FreeRunner::Run(PseudoDecoder& decoder,
                                            const ProgressSink& progress) const {
  int64_t work = 0;
  const auto add = [&](int64_t done) {
    work += done;
    if (progress) progress(work);
  };
  FreeRunning result;
  result.prompts = prompts_;
  result.prompt_tokens = prompt_tokens_;
  result.tokens = tokens_;
  std::vector<double> divergences;
  int64_t equal = 0, all = 0;
  for (int32_t i = 0; i < prompts_; ++i) {
    const std::vector<int32_t>& exact = continuations_[static_cast<size_t>(i)];
    decoder.Clear();
    ASYMSERVE_ASSIGN_OR_RETURN(
        const std::vector<int32_t> ids,
        Continue(decoder, 0, Prompt(i), static_cast<int32_t>(exact.size()), nullptr));
    divergences.push_back(static_cast<double>(Agreement(exact, ids)));
    result.divergence_mean += divergences.back() / prompts_;
    equal += EqualTokens(exact, ids);
    all += static_cast<int64_t>(exact.size());
    add(prompt_tokens_ + kStepWork * tokens_);
  }
  result.divergence_median = Quantile(divergences, 0.5);
  result.equal_tokens = static_cast<double>(equal) / static_cast<double>(all);
  for (size_t i = 0; i < sets_.size(); ++i) {
    AnswerScore score;
    score.test = sets_[i].test;
    score.tokens = sets_[i].tokens;
    score.asked = static_cast<int32_t>(sets_[i].questions.size());
    score.exact = exact_scores_[i];
    if (score.judged()) {
      ASYMSERVE_ASSIGN_OR_RETURN(score.score, Score(decoder, sets_[i]));
    }
    result.answers.push_back(std::move(score));
    add(WorkOf(sets_[i]));
  }
  for (size_t i = 0; i < exact_copies_.size(); ++i) {
    ASYMSERVE_ASSIGN_OR_RETURN(const double loss,
                               CopyLoss(decoder, Passage(copy_tokens_[i]), nullptr));
    result.copies.push_back({copy_tokens_[i], loss, exact_copies_[i]});
    add(copy_tokens_[i]);
  }
  decoder.Clear();
  return result;
}

}  // namespace asymserve
