#include "engine/model/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

namespace asymserve {
namespace {

using ::testing::HasSubstr;

constexpr float kInfiniteLogit = std::numeric_limits<float>::infinity();

// Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
const std::vector<float> four_logits = {std::log(0.25f), std::log(0.5f), std::log(0.125f),
                                        std::log(0.125f)};

int32_t Draw(Sampler& sampler, const SamplingParams& params, uint64_t position,
             const TokenHistory* history = nullptr) {
  SampleRequest request;
  request.logits = four_logits;
  request.params = &params;
  request.position = position;
  request.history = history;
  const auto token = sampler.Sample(request);
  EXPECT_TRUE(token.ok()) << token.status();
  return token->id;
}

std::map<int32_t, double> Frequencies(const SamplingParams& params, int draws = 40000) {
  Sampler sampler(4);
  std::map<int32_t, double> seen;
  for (int i = 0; i < draws; ++i)
    seen[Draw(sampler, params, static_cast<uint64_t>(i))] += 1.0 / draws;
  return seen;
}

TEST(SamplerTest, DrawsTokensAsOftenAsTheirProbabilitySays) {
  const auto seen = Frequencies({});
  EXPECT_NEAR(seen.at(0), 0.25, 0.01);
  EXPECT_NEAR(seen.at(1), 0.5, 0.01);
  EXPECT_NEAR(seen.at(2), 0.125, 0.01);
  EXPECT_NEAR(seen.at(3), 0.125, 0.01);
}

TEST(SamplerTest, TemperatureSharpensTheDistribution) {
  SamplingParams params;
  params.temperature = 0.5f;  // squares the odds: 4 : 16 : 1 : 1
  const auto seen = Frequencies(params);
  EXPECT_NEAR(seen.at(0), 4.0 / 22, 0.01);
  EXPECT_NEAR(seen.at(1), 16.0 / 22, 0.01);
}

TEST(SamplerTest, TemperatureZeroTakesTheMostLikelyAndTiesGoToTheLowestId) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(4);
  EXPECT_EQ(Draw(sampler, params, 0), 1);
  SampleRequest request;
  const std::vector<float> tied = {1, 3, 3, 2};
  request.logits = tied;
  request.params = &params;
  EXPECT_EQ(sampler.Sample(request)->id, 1);
}

TEST(SamplerTest, TopKKeepsTheKMostLikely) {
  SamplingParams params;
  params.top_k = 2;
  const auto seen = Frequencies(params);
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_NEAR(seen.at(1), 2.0 / 3, 0.01);
}

TEST(SamplerTest, TopPKeepsTheSmallestSetThatReachesIt) {
  SamplingParams params;
  params.top_p = 0.7f;  // 0.5 is not enough, 0.75 is
  EXPECT_EQ(Frequencies(params).size(), 2u);
  params.top_p = 0.49f;
  EXPECT_EQ(Frequencies(params).size(), 1u);
}

TEST(SamplerTest, MinPDropsTokensFarBelowTheMostLikely) {
  SamplingParams params;
  params.min_p = 0.3f;
  EXPECT_EQ(Frequencies(params).size(), 2u);
}

TEST(SamplerTest, TypicalPKeepsTheTokensClosestToTheEntropy) {
  // Entropy 1.75 bit: 2 bit (token 0) is the closest surprise, then 1 bit (token 1), then 3 bit.
  SamplingParams params;
  params.typical_p = 0.2f;
  const auto seen = Frequencies(params);
  EXPECT_EQ(seen.size(), 1u);
  EXPECT_TRUE(seen.contains(0));
}

TEST(SamplerTest, LogitBiasMovesATokensOdds) {
  SamplingParams params;
  params.logit_bias = {{1, -100.0f}};
  EXPECT_FALSE(Frequencies(params).contains(1));
}

TEST(SamplerTest, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogits) {
  Sampler sampler(3);
  SamplingParams params;
  params.temperature = 0;
  params.repetition_penalty = 2;
  TokenHistory history;
  history.seen = {0, 1};
  const std::vector<float> positive = {3, 2.9f, 2};  // 1.5, 1.45, 2
  SampleRequest request;
  request.logits = positive;
  request.params = &params;
  request.history = &history;
  EXPECT_EQ(sampler.Sample(request)->id, 2);
  const std::vector<float> negative = {-1, -1.5f, -1.8f};  // -2, -3, -1.8
  request.logits = negative;
  EXPECT_EQ(sampler.Sample(request)->id, 2);
}

TEST(SamplerTest, FrequencyPenaltyCountsAndPresencePenaltyDoesNot) {
  Sampler sampler(2);
  SamplingParams params;
  params.temperature = 0;
  TokenHistory history;
  history.output_counts = {{0, 3}, {1, 1}};
  const std::vector<float> logits = {2, 1};
  SampleRequest request;
  request.logits = logits;
  request.params = &params;
  request.history = &history;
  params.presence_penalty = 2;  // both fall by 2
  EXPECT_EQ(sampler.Sample(request)->id, 0);
  params.presence_penalty = 0;
  params.frequency_penalty = 1;  // -1 and 0
  EXPECT_EQ(sampler.Sample(request)->id, 1);
}

TEST(SamplerTest, ADrawDependsOnSeedAndPositionOnly) {
  Sampler one(4);
  Sampler other(4);
  SamplingParams params;
  params.seed = 7;
  std::vector<int32_t> forward, backward;
  for (uint64_t i = 0; i < 50; ++i) forward.push_back(Draw(one, params, i));
  for (uint64_t i = 50; i-- > 0;) backward.push_back(Draw(other, params, i));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  params.seed = 8;
  std::vector<int32_t> another;
  for (uint64_t i = 0; i < 50; ++i) another.push_back(Draw(one, params, i));
  EXPECT_NE(forward, another);
}

TEST(SamplerTest, LogProbsAreOfTheModelsOwnDistribution) {
  Sampler sampler(4);
  SamplingParams params;
  params.temperature = 0;
  params.logit_bias = {{3, 50.0f}};
  SampleRequest request;
  request.logits = four_logits;
  request.params = &params;
  request.logprobs = 3;
  const auto token = sampler.Sample(request);
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 3);
  EXPECT_NEAR(token->logprob, std::log(0.125), 1e-5);
  ASSERT_EQ(token->top.size(), 3u);
  EXPECT_EQ(token->top[0].token, 1);
  EXPECT_NEAR(token->top[0].logprob, std::log(0.5), 1e-5);
  EXPECT_EQ(token->top[1].token, 0);
  EXPECT_EQ(token->top[2].token, 2) << "ties go to the lower id";
}

TEST(SamplerTest, BannedTokensAreNeverDrawn) {
  Sampler sampler(4);
  SamplingParams params;
  const std::vector<int32_t> banned = {0, 1, 2};
  SampleRequest request;
  request.logits = four_logits;
  request.params = &params;
  request.banned = banned;
  for (uint64_t i = 0; i < 100; ++i) {
    request.position = i;
    EXPECT_EQ(sampler.Sample(request)->id, 3);
  }
}

TEST(SamplerTest, NaNLogitsAreAnError) {
  Sampler sampler(3);
  SamplingParams params;
  params.temperature = 0;
  const std::vector<float> logits = {1, std::numeric_limits<float>::quiet_NaN(), 2};
  SampleRequest request;
  request.logits = logits;
  request.params = &params;
  EXPECT_THAT(std::string(sampler.Sample(request).status().message()), HasSubstr("NaN"));
}

/// What is most likely, or -1 for an error.
int32_t MostLikely(const std::vector<float>& logits) {
  SamplingParams params;
  params.temperature = 0;
  Sampler sampler(static_cast<int32_t>(logits.size()));
  SampleRequest request;
  request.logits = logits;
  request.params = &params;
  const auto token = sampler.Sample(request);
  return token.ok() ? token->id : -1;
}

TEST(SamplerTest, TheLargestLogitAndANaNAreFoundAnywhereInVocabulariesOfAnySize) {
  for (const size_t size : {1u, 3u, 4u, 15u, 16u, 17u, 70u, 1023u, 1024u, 1025u, 3000u}) {
    SCOPED_TRACE(size);
    for (size_t place = 0; place < size; place += 1 + size / 37) {
      std::vector<float> logits(size, -kInfiniteLogit);
      logits[place] = -5;
      EXPECT_EQ(MostLikely(logits), static_cast<int32_t>(place));
      logits.assign(size, -2);
      logits[place] = logits.back() = 3;
      EXPECT_EQ(MostLikely(logits), static_cast<int32_t>(place));
      logits[place] = std::numeric_limits<float>::quiet_NaN();
      EXPECT_EQ(MostLikely(logits), -1);
    }
  }
}

TEST(SamplerTest, NothingLeftToDrawIsAnError) {
  Sampler sampler(2);
  SamplingParams params;
  const std::vector<float> logits = {-kInfiniteLogit, 1};
  const std::vector<int32_t> banned = {1};
  SampleRequest request;
  request.logits = logits;
  request.params = &params;
  request.banned = banned;
  EXPECT_THAT(std::string(sampler.Sample(request).status().message()), HasSubstr("no token"));
}

}  // namespace
}  // namespace asymserve
