#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/model/device_draw.h"
#include "engine/model/sampler.h"
#include "tests/engine/backend/cuda/draw_fixture.h"

// The kernels that choose tokens against the host's sampler: the same tokens from the same logits,
// parameters, history and random numbers.

namespace asymserve {
namespace {

using ::asymserve::testing::Draws;
using ::asymserve::testing::kInfinity;
using ::asymserve::testing::kNan;
using ::asymserve::testing::LaunchFault;
using ::asymserve::testing::RandomLogits;
using ::testing::Each;

// ---- The largest logit --------------------------------------------------------------------------

TEST(CudaArgMaxTest, TakesTheLargestAndOfTiesTheLowestId) {
  for (const int32_t vocabulary : {1, 31, 33, 1000, 1025, 2049}) {
    Draws draws(vocabulary);
    std::vector<int32_t> expected;
    for (uint32_t seed = 0; seed < 5; ++seed) {
      std::vector<float> logits = RandomLogits(vocabulary, seed);
      if (seed == 1) std::fill(logits.begin(), logits.end(), -3.0f);
      if (seed == 2) logits.back() = 100;
      if (seed > 2) {  // few values, so many ties
        for (float& logit : logits) logit = std::round(logit) * (seed == 3 ? 1 : 0.0f);
      }
      expected.push_back(
          static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
      draws.Add(logits, {});
    }
    EXPECT_EQ(draws.TokensInEveryOrder(), expected) << vocabulary;
    for (size_t i = 0; i < draws.size(); ++i) {
      EXPECT_EQ(draws.best()[i].value, draws.row(i)[static_cast<size_t>(expected[i])]);
    }
  }
}

TEST(CudaArgMaxTest, NaNAnywhereFailsItsOwnRowOnly) {
  constexpr int32_t kVocabulary = 1100;
  Draws draws(kVocabulary);
  std::vector<int32_t> expected;
  for (const int32_t at : {0, 31, 32, 1023, 1024, 1099}) {
    std::vector<float> logits = RandomLogits(kVocabulary, static_cast<uint32_t>(at));
    draws.Add(logits, {.inverse_temperature = 0});
    expected.push_back(
        static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
    logits[static_cast<size_t>(at)] = kNan;
    draws.Add(logits, {});
    draws.Add(logits, {.inverse_temperature = 1, .uniform = 0.5});
    draws.Add(logits, {.top_k = 4, .logprob = true});
    // A ban does not hide it.
    draws.Add(logits, {.inverse_temperature = 1}, {{at, EditKind::kBan, 0}});
    expected.insert(expected.end(), 4, kNanLogits);
  }
  EXPECT_EQ(draws.TokensInEveryOrder(), expected);
}

TEST(CudaArgMaxTest, RowsOfWhichNothingCanBeDrawnSaySo) {
  const std::vector<float> none(40, -kInfinity);
  std::vector<float> endless = RandomLogits(40, 1);
  endless[7] = kInfinity;
  std::vector<float> one = none;
  one[3] = 2;
  Draws draws(40);
  for (const float inverse : {0.0f, 1.0f}) {
    draws.Add(none, {.inverse_temperature = inverse});
    draws.Add(endless, {.inverse_temperature = inverse});
    draws.Add(one, {.inverse_temperature = inverse}, {{3, EditKind::kBan, 0}});
    draws.Add(one, {.inverse_temperature = inverse, .repetition_penalty = 1e-39f},
              {{3, EditKind::kSeen, 0}});
    // Infinity less infinity.
    draws.Add(endless, {.inverse_temperature = inverse}, {{7, EditKind::kBias, -kInfinity}});
  }
  EXPECT_THAT(draws.TokensInEveryOrder(), Each(kNothingToDraw));
  Draws others(40);
  others.Add(one, {.inverse_temperature = 1, .top_p = 0.5f, .uniform = 0.99});
  others.Add(endless, {}, {{7, EditKind::kBan, 0}});
  const std::vector<int32_t> tokens = others.Tokens();
  EXPECT_EQ(tokens[0], 3);
  endless[7] = -kInfinity;
  EXPECT_EQ(tokens[1], std::max_element(endless.begin(), endless.end()) - endless.begin());
}

// ---- Edits --------------------------------------------------------------------------------------

TEST(CudaEditLogitsTest, MakesTheEditsOfEachKindInTheirOrderAndTakesThemBack) {
  constexpr int32_t kVocabulary = 700;
  const std::vector<float> logits = RandomLogits(kVocabulary, 9);
  const TokenDraw draw = {
      .repetition_penalty = 1.3f, .frequency_penalty = 0.7f, .presence_penalty = -0.4f};
  // Tokens with every set of kinds; those of one kind one after the other, so that a token's are
  // made by different threads.
  std::vector<LogitEdit> edits;
  std::vector<float> expected = logits;
  for (int32_t kind = 0; kind < kEditKinds; ++kind) {
    for (int32_t token = 3; token < kVocabulary; token += 2) {
      if ((token >> kind & 1) == 0) continue;
      const float value =
          kind == 0 ? 0.37f * static_cast<float>(token % 9 - 4) : static_cast<float>(1 + token % 5);
      edits.push_back({token, static_cast<EditKind>(kind), value});
      float& logit = expected[static_cast<size_t>(token)];
      if (kind == 0) logit += value;
      if (kind == 1) logit = logit > 0 ? logit / 1.3f : logit * 1.3f;
      if (kind == 2) logit -= 0.7f * value + -0.4f;
      if (kind == 3) logit = -kInfinity;
    }
  }
  ASSERT_GT(edits.size(), 600u);
  simt::ForEachOrder([&] {
    Draws draws(kVocabulary);
    draws.Add(logits, {});
    draws.Add(logits, draw, edits);
    draws.Add(logits, {});
    const cuda::DrawRows rows = draws.Rows();
    ASSERT_EQ(cuda::EditLogits(rows, nullptr), cudaSuccess) << LaunchFault();
    EXPECT_TRUE(testing::SameBits(draws.row(0), logits));
    EXPECT_TRUE(testing::SameBits(draws.row(1), expected));
    EXPECT_TRUE(testing::SameBits(draws.row(2), logits));
    ASSERT_EQ(cuda::RestoreLogits(rows, nullptr), cudaSuccess) << LaunchFault();
    EXPECT_TRUE(testing::SameBits(draws.row(1), logits));
  });
}

// ---- All together -------------------------------------------------------------------------------

/// A request to sample and what belongs to it.
struct HostDraw {
  std::vector<float> logits;
  SamplingParams params;
  TokenHistory history;
  std::vector<int32_t> banned;
  uint64_t position = 0;
  int32_t logprobs = -1;

  SampleRequest request() const {
    return {.logits = logits,
            .params = &params,
            .history = &history,
            .banned = banned,
            .position = position,
            .logprobs = logprobs};
  }
};

/// Of every combination of options some, with ties and -infinity.
HostDraw RandomDraw(int32_t vocabulary, uint32_t seed) {
  std::mt19937 random(seed);
  const auto one_of = [&](uint32_t n) { return random() % n == 0; };
  const auto token = [&] {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(vocabulary));
  };
  HostDraw draw;
  draw.logits = RandomLogits(vocabulary, seed, one_of(2) ? 2.0f : 6.0f);
  if (one_of(4)) {
    for (float& logit : draw.logits) logit = std::round(logit);
  }
  if (one_of(4)) {
    for (int i = 0; i < vocabulary / 3; ++i) draw.logits[static_cast<size_t>(token())] = -kInfinity;
  }
  SamplingParams& params = draw.params;
  params.temperature = one_of(6) ? 0.0f : 0.3f + static_cast<float>(random() % 100) / 60;
  if (one_of(2)) params.top_k = static_cast<int32_t>(1 + random() % 60);
  if (one_of(2)) params.top_p = static_cast<float>(1 + random() % 999) / 1000;
  if (one_of(3)) params.min_p = static_cast<float>(random() % 400) / 1000;
  if (one_of(3)) params.repetition_penalty = 1 + static_cast<float>(random() % 50) / 100;
  if (one_of(3)) params.frequency_penalty = static_cast<float>(random() % 400) / 100 - 2;
  if (one_of(3)) params.presence_penalty = static_cast<float>(random() % 400) / 100 - 2;
  if (one_of(3)) params.logit_bias = {{token(), 2.5f}, {vocabulary - 1, -1.25f}};
  if (!params.logit_bias.empty() && params.logit_bias[0].first == vocabulary - 1) {
    params.logit_bias.pop_back();
  }
  for (int i = 0; i < 30; ++i) ++draw.history.output_counts[token()];
  for (const auto& [id, count] : draw.history.output_counts) draw.history.seen.push_back(id);
  if (one_of(3)) draw.banned = {0, token(), 0};
  params.seed = random();
  draw.position = random() % 1000;
  draw.logprobs = one_of(2) ? 0 : -1;
  return draw;
}

TEST(CudaSamplingTest, DrawsTheTokensOfTheHostsSampler) {
  int edited = 0;
  for (const int32_t vocabulary : {37, 1000, 1531}) {
    Sampler sampler(vocabulary);
    Draws draws(vocabulary);
    std::vector<HostDraw> host;
    for (uint32_t i = 0; i < 120; ++i) {
      host.push_back(RandomDraw(vocabulary, 1000 * static_cast<uint32_t>(vocabulary) + i));
      ASSERT_TRUE(DrawsOnDevice(host.back().params, host.back().logprobs));
      std::vector<LogitEdit> edits;
      const TokenDraw draw = MakeDraw(host.back().request(), 0, &edits);
      EXPECT_EQ(static_cast<int64_t>(edits.size()), CountEdits(host.back().request()));
      edited += edits.empty() ? 0 : 1;
      draws.Add(host.back().logits, draw, edits);
    }
    const std::vector<DrawnToken> drawn = draws.Run();
    for (size_t i = 0; i < host.size(); ++i) {
      const auto expected = sampler.Sample(host[i].request());
      const auto got = ToSampled(drawn[i], host[i].logprobs >= 0);
      ASSERT_TRUE(expected.ok() && got.ok()) << expected.status() << got.status();
      EXPECT_EQ(got->id, expected->id) << "draw " << i << " of " << vocabulary;
      EXPECT_NEAR(got->logprob, expected->logprob, 1e-6 * std::fabs(expected->logprob));
      EXPECT_EQ(expected->logprob == 0, host[i].logprobs < 0);
    }
  }
  EXPECT_GT(edited, 100);
}

TEST(CudaSamplingTest, FailuresAreThoseOfTheHostsSampler) {
  HostDraw draw = RandomDraw(50, 1);
  draw.logits[20] = kNan;
  HostDraw nothing;
  nothing.logits.assign(50, -kInfinity);
  nothing.logits[2] = 1;
  nothing.banned = {2};
  for (const HostDraw* each : {&draw, &nothing}) {
    Draws draws(50);
    std::vector<LogitEdit> edits;
    const TokenDraw token = MakeDraw(each->request(), 0, &edits);
    draws.Add(each->logits, token, edits);
    EXPECT_EQ(ToSampled(draws.Run()[0], false).status(),
              Sampler(50).Sample(each->request()).status());
  }
}

TEST(CudaSamplingTest, NoDrawsLaunchNothing) {
  EXPECT_EQ(cuda::LaunchDraws({}, true, true, nullptr), cudaSuccess);
}

}  // namespace
}  // namespace asymserve
