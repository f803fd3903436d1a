#include "engine/quality/free_running.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "tests/support/status_matchers.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using testing::IsOk;

/// A model that says what a function of the tokens so far says next. It reads no pages.
class ScriptedModel final : public Model {
 public:
  using Script = std::function<int32_t(const std::vector<int32_t>& before)>;

  int32_t vocabulary() const override { return testing::kToyLeastVocabulary; }
  int32_t context_length() const override { return 1024; }
  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    const auto first = static_cast<size_t>(batch.kv.positions.front());
    tokens_.resize(first);
    logits_.clear();
    size_t next = 0;
    for (size_t i = 0; i < batch.tokens.size(); ++i) {
      tokens_.push_back(batch.tokens[i]);
      if (next == batch.logit_rows.size() || batch.logit_rows[next] != static_cast<int32_t>(i)) {
        continue;
      }
      ++next;
      std::vector<float> row(static_cast<size_t>(vocabulary()));
      row[static_cast<size_t>(script(tokens_))] =
          broken ? std::numeric_limits<float>::infinity() : 9;
      logits_.insert(logits_.end(), row.begin(), row.end());
    }
    tokens_run += static_cast<int64_t>(batch.tokens.size());
    return MakeMatrix(logits_.data(), static_cast<int64_t>(next), vocabulary());
  }

  Script script;
  bool broken = false;
  int64_t tokens_run = 0;

 private:
  std::vector<int32_t> tokens_;
  std::vector<float> logits_;
};

class FreeRunningTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto tokenizer = Tokenizer::Create(testing::ToyTokenizerSpec(testing::kToyLeastVocabulary));
    ASSERT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
    auto backend = MakeCpuBackend({.threads = 1});
    ASSERT_THAT(backend, IsOk());
    backend_ = *std::move(backend);
    for (int32_t i = 0; i < 200; ++i) text_.push_back('a' + i % 26);
    model_.script = [](const std::vector<int32_t>& before) { return (before.back() + 1) % 256; };
  }

  PseudoDecoder MakeDecoder() {
    KvSetup setup;
    setup.shape = {1, 1, 8};
    auto decoder = PseudoDecoder::Create(model_, *backend_, setup, 1024);
    EXPECT_THAT(decoder, IsOk());
    return *std::move(decoder);
  }
  FreeRunner MakeRunner(const FreeRunningOptions& options, bool lines = false,
                        const std::vector<Problem>& problems = {}) {
    auto runner =
        FreeRunner::Create(options, *tokenizer_, text_, problems, lines, model_.context_length());
    EXPECT_THAT(runner, IsOk());
    return *std::move(runner);
  }
  /// Says what followed the tokens since the last line break where they stood before; 'x' if they
  /// did not.
  static int32_t Retrieve(const std::vector<int32_t>& before) {
    const auto line = std::find(before.rbegin(), before.rend(), '\n').base();
    const auto told = std::search(before.begin(), line, line, before.end());
    return told == line ? 'x' : *(told + (before.end() - line));
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  std::unique_ptr<Backend> backend_;
  ScriptedModel model_;
  std::vector<int32_t> text_;
};

const FreeRunningOptions kPromptsOnly = {
    .prompts = 4, .tokens = 10, .line_tokens = {}, .copy_tokens = {}};

TEST_F(FreeRunningTest, GreedyTextStopsWhereItIsToldOrFull) {
  PseudoDecoder decoder = MakeDecoder();
  const std::vector<int32_t> prompt = {5, 6};
  const auto full = Continue(decoder, 0, prompt, 3, nullptr);
  ASSERT_THAT(full, IsOk());
  EXPECT_THAT(*full, ::testing::ElementsAre(7, 8, 9));
  decoder.Clear();
  const auto stopped = Continue(decoder, 0, prompt, 100,
                                [](std::span<const int32_t> ids) { return ids.back() == 8; });
  ASSERT_THAT(stopped, IsOk());
  EXPECT_THAT(*stopped, ::testing::ElementsAre(7, 8));
  model_.broken = true;
  decoder.Clear();
  EXPECT_THAT(Continue(decoder, 0, prompt, 3, nullptr),
              FailsWith(StatusCode::kInternal, "logits are not finite"));
}

TEST_F(FreeRunningTest, TheSameTextPartsNowhere) {
  FreeRunner runner = MakeRunner(kPromptsOnly);
  PseudoDecoder decoder = MakeDecoder();
  ASSERT_THAT(runner.RunExact(decoder, nullptr), IsOk());
  std::vector<int64_t> work;
  const auto run = runner.Run(decoder, [&](int64_t done) { work.push_back(done); });
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->prompts, 4);
  EXPECT_EQ(run->prompt_tokens, 100);
  EXPECT_EQ(run->tokens, 10);
  EXPECT_EQ(run->divergence_mean, 10);
  EXPECT_EQ(run->divergence_median, 10);
  EXPECT_EQ(run->equal_tokens, 1);
  EXPECT_TRUE(run->answers.empty() && run->copies.empty());
  ASSERT_EQ(work.size(), 4u);
  EXPECT_TRUE(std::is_sorted(work.begin(), work.end()));
  EXPECT_EQ(work.back(), runner.work());
}

TEST_F(FreeRunningTest, TheFirstOtherTokenIsCountedAndLaterEqualOnesToo) {
  FreeRunner runner = MakeRunner(kPromptsOnly);
  PseudoDecoder decoder = MakeDecoder();
  ASSERT_THAT(runner.RunExact(decoder, nullptr), IsOk());
  // The prompts begin at 0, 25, 50, 75: those of odd number part after 3 tokens, for one token.
  model_.script = [](const std::vector<int32_t>& before) {
    const bool odd = before.front() % 2 != 'a' % 2;
    const auto said = static_cast<int32_t>(before.size()) - 100;
    if (odd && said == 3) return 0;
    if (odd && said == 4) return (before[102] + 2) % 256;
    return (before.back() + 1) % 256;
  };
  const auto run = runner.Run(decoder, nullptr);
  ASSERT_THAT(run, IsOk());
  const int32_t odd =
      (text_[25] % 2 != 'a' % 2) + (text_[50] % 2 != 'a' % 2) + (text_[75] % 2 != 'a' % 2);
  ASSERT_EQ(odd, 2);
  EXPECT_EQ(run->divergence_mean, (2 * 10 + 2 * 3) / 4.0);
  EXPECT_EQ(run->divergence_median, (10 + 3) / 2.0);
  EXPECT_EQ(run->equal_tokens, (2 * 10 + 2 * 9) / 40.0);
}

TEST_F(FreeRunningTest, ExactTextEndsWithItsEndOfTextToken) {
  FreeRunner runner = MakeRunner(kPromptsOnly);
  PseudoDecoder decoder = MakeDecoder();
  model_.script = [](const std::vector<int32_t>& before) {
    return before.size() == 104 ? testing::kToyTurnEnd : 'y';
  };
  ASSERT_THAT(runner.RunExact(decoder, nullptr), IsOk());
  model_.script = [](const std::vector<int32_t>&) { return 'y'; };
  const auto run = runner.Run(decoder, nullptr);
  ASSERT_THAT(run, IsOk());
  EXPECT_EQ(run->divergence_mean, 4);
  EXPECT_EQ(run->equal_tokens, 4 / 5.0);
}

TEST_F(FreeRunningTest, LinesAreScoredWhereExactFindsThem) {
  const FreeRunningOptions options = {
      .prompts = 1, .tokens = 1, .line_tokens = {256, 512, 4096}, .lines = 4, .copy_tokens = {256}};
  FreeRunner runner = MakeRunner(options, true);
  EXPECT_EQ(runner.longest(), 512);  // 4,096 tokens do not fit the model
  PseudoDecoder decoder = MakeDecoder();
  model_.script = Retrieve;
  model_.tokens_run = 0;
  ASSERT_THAT(runner.RunExact(decoder, nullptr), IsOk());
  EXPECT_LT(model_.tokens_run, 2 * (256 + 512)) << "a context is read once for all its questions";
  // Forgets what is further back than 300 tokens.
  model_.script = [](const std::vector<int32_t>& before) {
    const size_t kept = std::min<size_t>(before.size(), 300);
    return Retrieve({before.end() - static_cast<std::ptrdiff_t>(kept), before.end()});
  };
  const auto run = runner.Run(decoder, nullptr);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->answers.size(), 2u);
  EXPECT_EQ(run->answers[0].test, "lines");
  EXPECT_EQ(run->answers[0].tokens, 256);
  EXPECT_EQ(run->answers[0].exact, 1);
  EXPECT_EQ(run->answers[0].score, 1);
  EXPECT_EQ(run->answers[1].asked, 4);
  EXPECT_EQ(run->answers[1].exact, 1);
  EXPECT_EQ(run->answers[1].score, 0.5);
  EXPECT_TRUE(run->copies.empty());  // everything was judged
}

TEST_F(FreeRunningTest, WhatExactCannotDoIsNotJudgedAndTheCopyTestStandsIn) {
  const FreeRunningOptions options = {.prompts = 1,
                                      .tokens = 1,
                                      .line_tokens = {256},
                                      .lines = 4,
                                      .shots = 1,
                                      .problems = 2,
                                      .copy_tokens = {256, 400, 402}};
  const std::vector<Problem> problems = {{"a", "#### 1"}, {"b", "#### 5"}, {"c", "#### 6"}};
  FreeRunner runner = MakeRunner(options, true, problems);
  PseudoDecoder decoder = MakeDecoder();
  ASSERT_THAT(runner.RunExact(decoder, nullptr), IsOk());
  model_.script = Retrieve;
  const auto run = runner.Run(decoder, nullptr);
  ASSERT_THAT(run, IsOk());
  ASSERT_EQ(run->answers.size(), 2u);
  for (const AnswerScore& score : run->answers) {
    EXPECT_EQ(score.exact, 0);
    EXPECT_FALSE(score.judged());
    EXPECT_FALSE(score.score.has_value());
  }
  EXPECT_EQ(run->answers[1].test, "answers");
  EXPECT_EQ(run->answers[1].asked, 2);
  ASSERT_EQ(run->copies.size(), 2u);  // the text has 200 tokens
  EXPECT_EQ(run->copies[0].tokens, 256);
  EXPECT_EQ(run->copies[1].tokens, 400);
  EXPECT_LT(run->copies[0].nll_exact, run->copies[0].nll);
}

TEST_F(FreeRunningTest, AnErrorOfTheModelIsTheResult) {
  FreeRunner runner = MakeRunner(kPromptsOnly);
  PseudoDecoder decoder = MakeDecoder();
  model_.broken = true;
  EXPECT_THAT(runner.RunExact(decoder, nullptr), FailsWith(StatusCode::kInternal, "not finite"));
}

}  // namespace
}  // namespace asymserve
