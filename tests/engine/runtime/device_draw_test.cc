// Requests whose tokens a backend draws, beside those whose logits come to the host: who is which,
// what is asked of the backend, and what becomes of its answers. The model draws as Sampler does.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/engine/runtime/engine_fixture.h"

namespace asymserve {
namespace {

using ::asymserve::testing::EngineTest;
using ::asymserve::testing::Gate;
using ::asymserve::testing::kEos;
using ::asymserve::testing::kVocabulary;
using ::asymserve::testing::RecordingSink;
using ::asymserve::testing::ScriptedModel;
using ::testing::HasSubstr;

/// Draws greedily, and leaves NaN where logits do not come to the host.
class DrawingModel final : public Model {
 public:
  explicit DrawingModel(ScriptedModel& model) : model_(model) {}
  int32_t vocabulary() const override { return model_.vocabulary(); }
  int32_t context_length() const override { return model_.context_length(); }
  std::optional<DrawLimits> draw_limits() const override { return DrawLimits{.edits = 8}; }

  absl::StatusOr<TensorView> Forward(const Batch& batch) override {
    absl::StatusOr<TensorView> logits = model_.Forward(batch);
    EXPECT_EQ(batch.draws.draws.size(), batch.drawn.size());
    for (size_t i = 0; i < batch.draws.draws.size() && logits.ok(); ++i) {
      const TokenDraw& draw = batch.draws.draws[i];
      const std::span<float> row(logits->Row<float>(draw.row), kVocabulary);
      batch.drawn[i] = Draw(draw, batch.draws.edits, row);
      std::fill(row.begin(), row.end(), std::numeric_limits<float>::quiet_NaN());
    }
    drawn += static_cast<int>(batch.draws.draws.size());
    sampled += static_cast<int>(batch.logit_rows.size() - batch.draws.draws.size());
    return logits;
  }

  std::atomic<int> drawn{0};
  std::atomic<int> sampled{0};  // rows for the host

 private:
  static DrawnToken Draw(const TokenDraw& draw, std::span<const LogitEdit> edits,
                         std::span<float> row) {
    if (std::any_of(row.begin(), row.end(), [](float x) { return std::isnan(x); })) {
      return {.token = kNanLogits};
    }
    const std::vector<float> raw(row.begin(), row.end());
    EXPECT_EQ(draw.inverse_temperature, 0);
    for (int32_t e = 0; e < draw.edit_count; ++e) {
      const LogitEdit& edit = edits[static_cast<size_t>(draw.first_edit + e)];
      float& logit = row[static_cast<size_t>(edit.token)];
      if (edit.kind == EditKind::kBias) logit += edit.value;
      if (edit.kind == EditKind::kCount) {
        logit -= draw.frequency_penalty * edit.value + draw.presence_penalty;
      }
      if (edit.kind == EditKind::kBan) logit = -std::numeric_limits<float>::infinity();
    }
    const auto token = static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    DrawnToken drawn = {.token = token};
    if (draw.logprob) {
      drawn.logit = raw[static_cast<size_t>(token)];
      drawn.largest = *std::max_element(raw.begin(), raw.end());
      for (const float logit : raw) drawn.sum += std::exp(double{logit} - drawn.largest);
    }
    return drawn;
  }

  ScriptedModel& model_;
};

class DeviceDrawTest : public EngineTest {
 protected:
  DeviceDrawTest() { engine_ = std::make_unique<Engine>(drawing_, tokenizer_, SmallOptions()); }
  ~DeviceDrawTest() override { engine_.reset(); }  // before its model
  /// What the request got, and how many of its tokens were drawn.
  std::vector<int32_t> Tokens(const GenerateRequest& request, int drawn) {
    const int before = drawing_.drawn;
    const auto sink = Submit(request);
    sink->WaitForFinal();
    EXPECT_EQ(drawing_.drawn - before, drawn);
    return sink->tokens();
  }
  /// The same on the host: log-probabilities of other tokens are not drawn.
  std::vector<int32_t> OnHost(GenerateRequest request) {
    request.logprobs = 2;
    return Tokens(request, 0);
  }

  DrawingModel drawing_{model_};
};

TEST_F(DeviceDrawTest, GreedyTokensAreDrawnAndTheirLogitsNotRead) {
  EXPECT_EQ(Tokens(Greedy({1, 2, 3}, 9), 9), ScriptedModel::Expected({1, 2, 3}, 9));
  EXPECT_EQ(drawing_.sampled, 0);
}

TEST_F(DeviceDrawTest, WhatTheBackendCannotDrawIsSampledOnTheHostInTheSameSteps) {
  Gate gate;
  model_.before_step = [&] { gate.Pass(); };
  const auto first = Submit(Greedy({7}, 1));
  gate.WaitUntilHeld();
  GenerateRequest typical = Greedy({3, 1}, 6);
  typical.sampling.typical_p = 0.9f;
  GenerateRequest top = Greedy({4, 1}, 6);
  top.logprobs = 3;
  GenerateRequest twice = Greedy({5, 1}, 6);
  twice.sampling.logit_bias = {{2, 0.5f}, {2, 0.5f}};
  GenerateRequest biased = Greedy({6, 1}, 6);
  for (int32_t token = 0; token < 9; ++token) biased.sampling.logit_bias.push_back({token, 0.5f});
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (const GenerateRequest& request : {typical, Greedy({1, 1}, 6), top, twice, biased}) {
    sinks.push_back(Submit(request));
  }
  gate.Open();
  const std::vector<int32_t> begins = {3, 1, 4, 5, 6};
  for (size_t i = 0; i < sinks.size(); ++i) {
    EXPECT_EQ(sinks[i]->WaitForFinal().finish, FinishReason::kLength);
    EXPECT_EQ(sinks[i]->tokens(), ScriptedModel::Expected({begins[i], 1}, 6)) << i;
  }
  EXPECT_EQ(drawing_.drawn, 7);
  EXPECT_EQ(drawing_.sampled, 24);
  EXPECT_GE(model_.largest_batch, 5);
}

TEST_F(DeviceDrawTest, BiasCountsAndBansComeToTheBackend) {
  model_.forced = [](int32_t) { return kEos; };
  GenerateRequest request = Greedy({1, 2}, 7);
  request.sampling.logit_bias = {{20, 4.0f}, {30, 5.5f}};
  request.sampling.frequency_penalty = 1;
  request.stop.min_tokens = 5;
  const std::vector<int32_t> tokens = Tokens(request, 6);
  // The end token is banned five times; each token falls by 1 whenever it came.
  EXPECT_EQ(tokens, (std::vector<int32_t>{30, 30, 20, 30, 20, kEos}));
  EXPECT_EQ(OnHost(request), tokens);
}

TEST_F(DeviceDrawTest, ARequestLeavesForTheHostWhenItsPenaltiesNameTooManyTokens) {
  GenerateRequest request = Greedy({1, 2}, 14);
  request.sampling.presence_penalty = 0.25f;
  const std::vector<int32_t> expected = OnHost(request);
  // With the n-th token it has n - 1 edits, fewer where tokens repeat.
  std::vector<int32_t> distinct;
  int drawn = 0;
  for (const int32_t token : expected) {
    drawn += distinct.size() <= 8 ? 1 : 0;
    if (std::find(distinct.begin(), distinct.end(), token) == distinct.end()) {
      distinct.push_back(token);
    }
  }
  ASSERT_LT(drawn, 14);
  EXPECT_EQ(Tokens(request, drawn), expected);
}

TEST_F(DeviceDrawTest, TheDrawnTokensLogProbabilityIsThatOfTheHost) {
  GenerateRequest request = Greedy({1, 2}, 3);
  request.logprobs = 0;
  const auto device = Submit(request);
  const Delta drawn = device->WaitForFinal();
  request.logprobs = 1;
  const auto host = Submit(request);
  const Delta sampled = host->WaitForFinal();
  EXPECT_NEAR(drawn.tokens[0].logprob, sampled.tokens[0].logprob, 1e-6);
  EXPECT_LT(drawn.tokens[0].logprob, 0);
}

TEST_F(DeviceDrawTest, NaNLogitsOfADrawnRowFailTheirOwnRequestOnly) {
  model_.nan_after_first_token = 9;
  const auto poisoned = Submit(Greedy({9, 1}, 5));
  const auto healthy = Submit(Greedy({8, 1}, 5));
  const Delta last = poisoned->WaitForFinal();
  EXPECT_EQ(last.finish, FinishReason::kError);
  EXPECT_THAT(std::string(last.error.message()), HasSubstr("NaN"));
  EXPECT_EQ(healthy->WaitForFinal().finish, FinishReason::kLength);
  EXPECT_TRUE(engine_->health().ok());
  EXPECT_EQ(drawing_.sampled, 0);
}

}  // namespace
}  // namespace asymserve
