#include "engine/quality/gradient_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kv/item_name.h"
#include "engine/model/llama.h"
#include "engine/quality/pseudo_decode.h"
#include "engine/quality/quality_metrics.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

constexpr int32_t kTokens = 256;
constexpr int32_t kFrom = 64;

/// A toy model of an architecture, whose weights are F32.
class GradientModelTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    path_ = folder_.Path("toy.gguf");
    testing::WriteToyGguf({.architecture = GetParam()}, path_);
    auto file = OpenWeightFile(path_);
    ASSERT_THAT(file, IsOk());
    file_ = *std::move(file);
    const ModelConfig& config = file_->config();
    shape_ = {config.layers, config.attention.kv_heads, config.attention.head_size};
    model_ = Make(pool_);
    for (int32_t i = 0; i < kTokens; ++i) tokens_.push_back((i * i * 7 + 3 * i) % 280);
    weights_.assign(kTokens, 0.0f);
    for (int32_t i = kFrom; i < kTokens - 1; ++i) weights_[static_cast<size_t>(i)] = 0.01f;
    scheme_.near = KvCodec::kInt8;
    scheme_.sink_pages = 1;
    scheme_.items.assign(KvItemCount(shape_),
                         {.codec = KvCodec::kPlanes, .base_planes = 2, .fresh_planes = 2});
  }

  std::unique_ptr<GradientModel> Make(ThreadPool& pool) const {
    auto model = GradientModel::Create(*file_, pool);
    EXPECT_THAT(model, IsOk());
    return *std::move(model);
  }

  /// Codes of two planes that know nothing but the mean, which is `mean` in channel 0.
  PlaneCodes MeanCodes(float mean) const {
    const auto width = static_cast<size_t>(shape_.head_size);
    PlaneCode code;
    code.head_size = shape_.head_size;
    code.subvector = {0, 1};
    code.codebooks.assign(128, 0.0f);
    code.encode.assign(width * width, 0.0f);
    for (size_t d = 0; d < width; ++d) code.encode[d * width + d] = 1;
    code.decode = code.encode;
    code.mean.assign(width, 0.0f);
    code.mean[0] = mean;
    return PlaneCodes(KvItemCount(shape_), code);
  }

  double Loss(const PlaneCodes& codes, const std::vector<float>& exact) {
    EXPECT_THAT(model_->Forward(tokens_, scheme_, &codes), IsOk());
    const GradientLosses losses = model_->Judge(exact, weights_);
    double sum = 0;
    for (size_t t = 0; t < losses.kl.size(); ++t) {
      sum += static_cast<double>(weights_[t]) * losses.kl[t];
    }
    return sum;
  }

  /// The gradient with respect to MeanCodes' argument. Frame 0 begins at position 0: its keys are
  /// as they were before rotation.
  double SlopeOfMean(const std::vector<float>& gradients, size_t head) const {
    const auto width = static_cast<size_t>(shape_.head_size);
    const auto heads = static_cast<size_t>(shape_.kv_heads);
    double slope = 0;
    for (size_t t = 0; t < gradients.size() / (heads * width); ++t) {
      slope += static_cast<double>(gradients[(t * heads + head) * width]);
    }
    return slope;
  }

  testing::TempDir folder_;
  std::string path_;
  std::unique_ptr<WeightFile> file_;
  KvShape shape_;
  ThreadPool pool_{1};
  std::unique_ptr<GradientModel> model_;
  std::vector<int32_t> tokens_;
  std::vector<float> weights_;
  KvScheme scheme_;
};

TEST_P(GradientModelTest, ComputesWhatTheServedModelComputes) {
  auto backend = MakeCpuBackend({.threads = 1});
  ASSERT_THAT(backend, IsOk());
  auto served = LlamaModel::Load(*file_, **backend, {});
  ASSERT_THAT(served, IsOk());
  KvSetup setup;
  setup.shape = shape_;
  auto decoder = PseudoDecoder::Create(**served, **backend, setup, kTokens);
  ASSERT_THAT(decoder, IsOk());
  std::map<int32_t, double> expected;
  ASSERT_THAT(decoder->Run(tokens_, kFrom,
                           [&](int32_t position, std::span<const float> logits) {
                             const int32_t next = tokens_[static_cast<size_t>(position) + 1];
                             expected[position] = NegativeLogLikelihood(logits, next);
                           }),
              IsOk());
  ASSERT_THAT(model_->Forward(tokens_, scheme_, nullptr), IsOk());
  const std::vector<float> exact = model_->hidden();
  const GradientLosses losses = model_->Judge(exact, weights_);
  for (const auto& [position, nll] : expected) {
    // The served cache is fp16.
    EXPECT_NEAR(losses.nll[static_cast<size_t>(position)], nll, 0.01) << position;
    EXPECT_NEAR(losses.kl[static_cast<size_t>(position)], 0, 1e-6) << position;
  }
}

TEST_P(GradientModelTest, GradientsAreTheSlopesOfTheLoss) {
  const int32_t last = shape_.layers - 1;
  ASSERT_THAT(model_->Forward(tokens_, scheme_, nullptr), IsOk());
  const std::vector<float> exact = model_->hidden();
  for (const KvTensor tensor : {KvTensor::kKey, KvTensor::kValue}) {
    const size_t item = KvItemIndex(shape_, last, tensor, 1);
    PlaneCodes codes = MeanCodes(0.1f);
    Loss(codes, exact);
    double slope = 0;
    ASSERT_THAT(model_->Backward([&](const KvGradients& layer) {
      if (layer.layer != last) return;
      const bool key = tensor == KvTensor::kKey;
      const auto& rows = (key ? layer.gradients.keys : layer.gradients.values)[2];
      slope = SlopeOfMean(rows, 1);
    }),
                IsOk());
    constexpr float kStep = 0.01f;
    codes[item].mean[0] += kStep;
    const double above = Loss(codes, exact);
    codes[item].mean[0] -= 2 * kStep;
    const double below = Loss(codes, exact);
    EXPECT_GT(std::fabs(slope), 1e-5);
    EXPECT_NEAR((above - below) / static_cast<double>(2 * kStep), slope, 0.02 * std::fabs(slope));
  }
}

TEST_P(GradientModelTest, SampledGradientsSquareToTheCurvature) {
  // The KL of a small shift is half its curvature times its square.
  const int32_t last = shape_.layers - 1;
  PlaneCodes codes = MeanCodes(0.1f);
  double curvature = 0;
  constexpr int kSamples = 100;
  for (uint64_t seed = 0; seed < kSamples; ++seed) {
    ASSERT_THAT(model_->Forward(tokens_, scheme_, &codes), IsOk());
    model_->SampleCurvature(weights_, seed);
    double slope = 0;
    ASSERT_THAT(model_->Backward([&](const KvGradients& layer) {
      if (layer.layer == last) slope = SlopeOfMean(layer.gradients.values[2], 1);
    }),
                IsOk());
    curvature += slope * slope / kSamples;
  }
  const std::vector<float> exact = model_->hidden();
  constexpr float kStep = 0.05f;
  codes[KvItemIndex(shape_, last, KvTensor::kValue, 1)].mean[0] += kStep;
  const double kl = Loss(codes, exact);
  EXPECT_GT(kl, 1e-7);
  // The mean of 100 squares is within 15 % of its expectation two times of three.
  EXPECT_NEAR(curvature * static_cast<double>(kStep * kStep) / 2, kl, 0.4 * kl);
}

TEST_P(GradientModelTest, ResultsDoNotDependOnThreads) {
  ThreadPool three(3);
  const std::unique_ptr<GradientModel> other = Make(three);
  const PlaneCodes codes = MeanCodes(0.1f);
  std::vector<std::vector<float>> seen[2];
  GradientModel* const models[] = {model_.get(), other.get()};
  for (int i = 0; i < 2; ++i) {
    GradientModel& model = *models[i];
    ASSERT_THAT(model.Forward(tokens_, scheme_, nullptr), IsOk());
    const std::vector<float> exact = model.hidden();
    ASSERT_THAT(model.Forward(tokens_, scheme_, &codes), IsOk());
    model.Judge(exact, weights_);
    seen[i].push_back(model.hidden());
    ASSERT_THAT(model.Backward([&](const KvGradients& layer) {
      seen[i].push_back(layer.gradients.keys[2]);
      seen[i].push_back(layer.gradients.values[0]);
    }),
                IsOk());
  }
  EXPECT_EQ(seen[0], seen[1]);
}

TEST_P(GradientModelTest, RefusesAPartOfAPage) {
  tokens_.pop_back();
  EXPECT_THAT(model_->Forward(tokens_, scheme_, nullptr),
              FailsWith(absl::StatusCode::kInternal, "255 tokens, no multiple of 64"));
}

INSTANTIATE_TEST_SUITE_P(Architectures, GradientModelTest,
                         ::testing::Values("llama", "qwen2", "qwen3"));

}  // namespace
}  // namespace asymserve
