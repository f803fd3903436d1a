#include "engine/quality/question_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/toy_tokenizer.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using testing::IsOk;
using ::testing::StartsWith;

class QuestionSetTest : public ::testing::Test {
 protected:
  QuestionSetTest() {
    auto tokenizer = Tokenizer::Create(testing::ToyTokenizerSpec(testing::kToyLeastVocabulary));
    EXPECT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
  }
  std::string TextOf(std::span<const int32_t> ids) const { return Decode(*tokenizer_, ids, true); }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(QuestionSetTest, EveryLineAskedForStandsInTheContextWithItsNumber) {
  const auto set = LineQuestions(*tokenizer_, 1024, 16);
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(set->context.size(), 1024u - 64u);
  const std::string context = TextOf(set->context);
  ASSERT_EQ(set->questions.size(), 16u);
  std::set<std::string> keys;
  size_t before = 0;
  for (const Question& question : set->questions) {
    const std::string key = TextOf(question.tokens);
    EXPECT_THAT(key, StartsWith("The code of the "));
    EXPECT_TRUE(keys.insert(key).second) << key;
    const size_t at = context.find(key + " " + question.number + ".\n");
    ASSERT_NE(at, std::string::npos) << key;
    EXPECT_EQ(context.find(key, at + 1), std::string::npos);
    EXPECT_TRUE(at >= before) << "oldest first";
    before = at;
    EXPECT_LE(question.tokens.size() + static_cast<size_t>(set->answer_tokens), 64u);
    EXPECT_TRUE(IsRight(*set, question, " " + question.number + ".\nThe code"));
    EXPECT_FALSE(IsRight(*set, question, " " + question.number + "0.\nThe code"));
  }
}

TEST_F(QuestionSetTest, LinesAreTheSameEveryTimeAndFewInALittleContext) {
  const auto first = LineQuestions(*tokenizer_, 256, 16),
             again = LineQuestions(*tokenizer_, 256, 16);
  ASSERT_THAT(first, IsOk());
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(first->context, again->context);
  EXPECT_LT(first->questions.size(), 16u);
  EXPECT_GE(first->questions.size(), 3u);
  EXPECT_THAT(LineQuestions(*tokenizer_, 64, 16),
              FailsWith(StatusCode::kInvalidArgument, "0 lines in 64 tokens"));
  // No more keys than 576: a context that they cannot fill is an error, not a shorter one.
  EXPECT_THAT(LineQuestions(*tokenizer_, 1 << 20, 16),
              FailsWith(StatusCode::kInvalidArgument, "576 lines"));
}

TEST_F(QuestionSetTest, ProblemsAreAskedBehindTheFirstOnes) {
  const std::vector<Problem> problems = {{"1+1?", "It is two. #### 2"},
                                         {"2+2?", "Four. #### 4"},
                                         {"No number?", "None."},
                                         {"1000*2?", "Much. #### 2,000"}};
  const auto set = ProblemQuestions(*tokenizer_, problems, 1, 1000);
  ASSERT_THAT(set, IsOk());
  EXPECT_EQ(TextOf(set->context), "Question: 1+1?\nAnswer: It is two. #### 2\n\n");
  ASSERT_EQ(set->questions.size(), 2u);
  EXPECT_EQ(TextOf(set->questions[0].tokens), "Question: 2+2?\nAnswer:");
  EXPECT_EQ(set->questions[0].number, "4");
  EXPECT_EQ(set->questions[1].number, "2000");

  const Question& question = set->questions[1];
  EXPECT_TRUE(IsRight(*set, question, " so #### 2000"));
  EXPECT_TRUE(IsRight(*set, question, " so #### $2,000.\n\nQuestion: more"));
  EXPECT_FALSE(IsRight(*set, question, " so 2000"));
  EXPECT_FALSE(IsRight(*set, question, " so #### 200"));
  EXPECT_FALSE(IsRight(*set, question, " so\n\nQuestion: a\nAnswer: #### 2000"));
  EXPECT_FALSE(IsRight(*set, question, ""));
}

TEST_F(QuestionSetTest, WhatDoesNotFitIsLeftOut) {
  const std::vector<Problem> problems = {
      {"a", "#### 1"}, {std::string(300, 'x'), "#### 2"}, {"c", "#### 3"}};
  const auto set = ProblemQuestions(*tokenizer_, problems, 1, 300);
  ASSERT_THAT(set, IsOk());
  ASSERT_EQ(set->questions.size(), 1u);
  EXPECT_EQ(set->questions[0].number, "3");
  for (const size_t shots : {3u, 4u}) {
    const auto none = ProblemQuestions(*tokenizer_, problems, shots, 300);
    ASSERT_THAT(none, IsOk());
    EXPECT_TRUE(none->questions.empty());
  }
}

}  // namespace
}  // namespace asymserve
