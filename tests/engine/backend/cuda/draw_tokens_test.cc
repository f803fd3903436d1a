#include "engine/backend/cuda/draw_tokens.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "engine/base/philox.h"
#include "tests/engine/backend/cuda/draw_fixture.h"

// Draws against their definition in doubles, at the edges between tokens.

namespace asymserve {
namespace {

using ::asymserve::testing::Draws;
using ::asymserve::testing::kInfinity;
using ::asymserve::testing::RandomLogits;

/// A token that may be drawn, and the random numbers that draw it: [from, to).
struct Stretch {
  int32_t token;
  double from;
  double to;
};

/// The definition, in doubles: the tokens that the filters leave, in the order in which random
/// numbers go over them.
std::vector<Stretch> Definition(std::span<const float> logits, const TokenDraw& draw) {
  const double top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weight;
  for (const float logit : logits)
    weight.push_back(std::exp((logit - top) * draw.inverse_temperature));
  std::vector<int32_t> kept(logits.size());
  std::iota(kept.begin(), kept.end(), 0);
  const auto of = [&](int32_t token) { return weight[static_cast<size_t>(token)]; };
  const auto sum = [&] {
    return std::accumulate(kept.begin(), kept.end(), 0.0,
                           [&](double s, int32_t token) { return s + of(token); });
  };
  if (draw.filters()) {
    std::erase_if(kept, [&](int32_t token) { return of(token) < std::exp(-30.0); });
    std::stable_sort(kept.begin(), kept.end(), [&](int32_t a, int32_t b) { return of(a) > of(b); });
    if (draw.top_k > 0) kept.resize(std::min(kept.size(), static_cast<size_t>(draw.top_k)));
    if (draw.top_p < 1) {
      const double wanted = draw.top_p * sum();
      double have = 0;
      size_t count = 0;
      while (count < kept.size() && have < wanted) have += of(kept[count++]);
      kept.resize(count);
    }
    std::erase_if(kept, [&](int32_t token) { return of(token) < draw.min_p; });
  }
  std::vector<Stretch> stretches;
  const double all = sum();
  double from = 0;
  for (const int32_t token : kept) {
    stretches.push_back({token, from, from + of(token) / all});
    from = stretches.back().to;
  }
  return stretches;
}

/// Asks for tokens of the definition, the first and the last ones of those that are likely enough,
/// just inside both of their edges. Weights differ from doubles by about 1e-7.
void ExpectDefinition(const std::vector<float>& logits, const TokenDraw& draw,
                      size_t most_tokens = 6) {
  constexpr double kInside = 1e-6;
  Draws draws(static_cast<int32_t>(logits.size()));
  std::vector<int32_t> expected;
  const std::vector<Stretch> definition = Definition(logits, draw);
  std::vector<Stretch> likely = definition;
  std::erase_if(likely, [](const Stretch& s) { return s.to - s.from < 3 * kInside; });
  for (size_t i = 0; i < likely.size(); ++i) {
    if (i >= most_tokens / 2 && i + most_tokens / 2 < likely.size()) continue;
    for (const double uniform : {likely[i].from + kInside, likely[i].to - kInside}) {
      TokenDraw one = draw;
      one.uniform = uniform;
      draws.Add(logits, one);
      expected.push_back(likely[i].token);
    }
  }
  ASSERT_GT(expected.size(), 0u);
  EXPECT_EQ(draws.Tokens(), expected)
      << logits.size() << " logits, top_k " << draw.top_k << ", top_p " << draw.top_p << ", min_p "
      << draw.min_p << ", 1 / temperature " << draw.inverse_temperature << ", " << definition.size()
      << " tokens kept";
}

TEST(CudaDrawTokensTest, EachOptionAloneDrawsWhatItsDefinitionSays) {
  for (const int32_t vocabulary : {1, 2, 33, 257, 1025, 2049}) {
    const std::vector<float> logits =
        RandomLogits(vocabulary, 100 + static_cast<uint32_t>(vocabulary));
    ExpectDefinition(logits, {.inverse_temperature = 1});
    ExpectDefinition(logits, {.inverse_temperature = 0.5f});
    ExpectDefinition(logits, {.inverse_temperature = 3});
    ExpectDefinition(logits, {.top_k = 1, .inverse_temperature = 1});
    ExpectDefinition(logits, {.top_k = 7, .inverse_temperature = 1});
    ExpectDefinition(logits, {.inverse_temperature = 1, .top_p = 0.3f});
    ExpectDefinition(logits, {.inverse_temperature = 1, .top_p = 0.9f});
    ExpectDefinition(logits, {.inverse_temperature = 1, .min_p = 0.05f});
    ExpectDefinition(logits, {.inverse_temperature = 1, .min_p = 1});
  }
}

TEST(CudaDrawTokensTest, OptionsTogetherCountOneAfterTheOther) {
  for (const int32_t vocabulary : {33, 1025, 3001}) {
    const std::vector<float> logits =
        RandomLogits(vocabulary, static_cast<uint32_t>(vocabulary), 2);
    ExpectDefinition(logits, {.top_k = 20, .inverse_temperature = 1, .top_p = 0.8f});
    ExpectDefinition(logits, {.top_k = 20, .inverse_temperature = 1.25f, .min_p = 0.2f});
    ExpectDefinition(logits, {.inverse_temperature = 0.7f, .top_p = 0.7f, .min_p = 0.1f});
    ExpectDefinition(logits, {.inverse_temperature = 0.7f, .top_p = 0.2f, .min_p = 0.001f});
    ExpectDefinition(logits, {.top_k = 9, .inverse_temperature = 1, .top_p = 0.95f, .min_p = 0.3f});
    ExpectDefinition(logits, {.top_k = vocabulary, .inverse_temperature = 1, .top_p = 0.9f});
    ExpectDefinition(logits, {.top_k = vocabulary + 5, .inverse_temperature = 1});
  }
}

TEST(CudaDrawTokensTest, IsTheSameInEveryOrderOfThreads) {
  const std::vector<float> logits = RandomLogits(1501, 5);
  Draws draws(1501);
  for (const double uniform : {0.1, 0.93}) {
    draws.Add(logits, {.inverse_temperature = 1, .uniform = uniform});
    draws.Add(
        logits,
        {.top_k = 40, .inverse_temperature = 1, .top_p = 0.9f, .min_p = 0.05f, .uniform = uniform});
  }
  draws.Add(logits, {.logprob = true});
  draws.TokensInEveryOrder();
}

TEST(CudaDrawTokensTest, AVocabularyOfSeveralRoundsIsSearchedToItsEnd) {
  constexpr int32_t kVocabulary = 70001;
  std::vector<float> logits = RandomLogits(kVocabulary, 3, 1);
  logits.back() = 9;
  ExpectDefinition(logits, {.inverse_temperature = 1});
  ExpectDefinition(logits, {.top_k = 300, .inverse_temperature = 1, .top_p = 0.97f});
}

// Equal weights are told apart by id, through every part of the row.
TEST(CudaDrawTokensTest, TiesFollowByIdAndAreCutByIt) {
  constexpr int32_t kVocabulary = 2100;
  std::vector<float> logits(kVocabulary, -2.0f);
  std::vector<int32_t> tied;
  for (int32_t i = 5; i < kVocabulary; i += 41) tied.push_back(i);
  for (const int32_t i : tied) logits[static_cast<size_t>(i)] = 1.5f;
  const auto at = [&](TokenDraw draw, double uniform) {
    Draws draws(kVocabulary);
    draw.uniform = uniform;
    draw.inverse_temperature = 1;
    draws.Add(logits, draw);
    return draws.Tokens()[0];
  };
  for (const size_t kept : {size_t{1}, size_t{3}, tied.size()}) {
    const TokenDraw draw = {.top_k = static_cast<int32_t>(kept)};
    for (size_t i = 0; i < kept; i += 1 + kept / 4) {
      EXPECT_EQ(at(draw, (static_cast<double>(i) + 0.5) / static_cast<double>(kept)), tied[i]);
    }
    EXPECT_EQ(at(draw, 1 - 0x1p-53), tied[kept - 1]);
  }
  // Of 4 equal tokens one more than half: the first three.
  std::vector<float> four = {0, 0, 0, 0};
  Draws draws(4);
  for (const double uniform : {0.0, 0.34, 0.99}) {
    draws.Add(four, {.inverse_temperature = 1, .top_p = 0.51f, .uniform = uniform});
  }
  for (const double uniform : {0.0, 0.49, 0.51, 1 - 0x1p-53}) {  // exactly half: two
    draws.Add(four, {.inverse_temperature = 1, .top_p = 0.5f, .uniform = uniform});
  }
  EXPECT_EQ(draws.TokensInEveryOrder(), (std::vector<int32_t>{0, 1, 2, 0, 0, 1, 1}));
}

TEST(CudaDrawTokensTest, WhatIsMinusInfinityIsNeverDrawn) {
  std::vector<float> logits = RandomLogits(301, 7);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i % 3 != 1) logits[i] = -kInfinity;
  }
  Draws draws(301);
  for (int32_t i = 0; i <= 40; ++i) {
    const double uniform = std::min(i / 40.0, 1 - 0x1p-53);
    draws.Add(logits, {.inverse_temperature = 0.01f, .uniform = uniform});
    draws.Add(logits, {.top_k = 250, .inverse_temperature = 0.1f, .uniform = uniform});
    draws.Add(logits, {.inverse_temperature = 0.1f, .top_p = 0.999f, .uniform = uniform});
  }
  std::map<int32_t, int> seen;
  for (const int32_t token : draws.Tokens()) ++seen[token];
  for (const auto& [token, count] : seen) EXPECT_EQ(token % 3, 1);
  EXPECT_GT(seen.size(), 60u);
}

TEST(CudaDrawTokensTest, NothingBelowThirtyNatsIsLeftByAFilter) {
  const std::vector<float> logits = {0, -29.9f, -30.1f, -31};
  Draws draws(4);
  draws.Add(logits, {.top_k = 3, .inverse_temperature = 1, .uniform = 1 - 0x1p-53});
  draws.Add(logits, {.top_k = 3, .inverse_temperature = 0.1f, .uniform = 1 - 0x1p-53});
  EXPECT_EQ(draws.Tokens(), (std::vector<int32_t>{1, 2}));
}

// Chi-square at a significance of 1e-6: the numbers are fixed, so it passes always or never.
TEST(CudaDrawTokensTest, TokensComeAsOftenAsTheirProbabilitySays) {
  const std::vector<float> logits = {0.3f, -0.5f, 1.1f, 0.0f, 2.0f, -4.0f, 1.7f};
  const struct {
    TokenDraw draw;
    double limit = 0;  // of chi-square for one less degree of freedom than tokens
  } cases[] = {{{.inverse_temperature = 0.8f}, 38.3},
               {{.top_k = 5, .inverse_temperature = 1}, 33.4},
               {{.inverse_temperature = 1, .top_p = 0.8f}, 27.7}};
  for (const auto& [draw, limit] : cases) {
    constexpr int kDraws = 200;
    Draws draws(7);
    for (int i = 0; i < kDraws; ++i) {
      TokenDraw one = draw;
      one.uniform = PhiloxUniform(11, static_cast<uint64_t>(i));
      draws.Add(logits, one);
    }
    std::map<int32_t, double> seen;
    for (const int32_t token : draws.Tokens()) seen[token] += 1;
    const std::vector<Stretch> definition = Definition(logits, draw);
    double chi_square = 0;
    for (const Stretch& stretch : definition) {
      const double expected = kDraws * (stretch.to - stretch.from);
      chi_square += std::pow(seen[stretch.token] - expected, 2) / expected;
    }
    EXPECT_EQ(seen.size(), definition.size()) << "tokens that were to be left out";
    EXPECT_LT(chi_square, limit);
    EXPECT_GT(chi_square, 0.1);
  }
}

TEST(CudaDrawTokensTest, ARowHasTheSameTokenAloneAndAmongOthers) {
  const TokenDraw options[] = {{.inverse_temperature = 1, .uniform = 0.61},
                               {.inverse_temperature = 1, .top_p = 0.9f, .uniform = 0.87},
                               {.top_k = 30, .inverse_temperature = 1, .uniform = 0.42},
                               {}};
  Draws together(777);
  std::vector<int32_t> alone;
  for (uint32_t i = 0; i < 8; ++i) {
    const std::vector<float> logits = RandomLogits(777, 50 + i);
    Draws one(777);
    one.Add(logits, options[i % 4]);
    alone.push_back(one.Tokens()[0]);
    together.Add(logits, options[i % 4]);
  }
  EXPECT_EQ(together.Tokens(), alone);
}

}  // namespace
}  // namespace asymserve
