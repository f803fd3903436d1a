// The default model against an independent forward pass (tests/golden/make_smollm2_golden.py).

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "nlohmann/json.hpp"

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/model/llama.h"
#include "tests/support/kv_setup.h"

namespace asymserve {
namespace {

// Largest difference to the reference logits over all prompts; they span about 40. Our activations
// are int8 per block of 32 and our KV pages fp16, the reference has neither.
constexpr double kMaxLogitError = 0.9;
constexpr int32_t kPages = 4;  // 256 tokens: the longest prompt and its continuation

class Smollm2GoldenTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(ASYMSERVE_MODEL_FILE)) {
      GTEST_SKIP() << "no model at " ASYMSERVE_MODEL_FILE " (tools/test fetches it)";
    }
    std::ifstream stream(ASYMSERVE_SOURCE_DIR "/tests/golden/smollm2_greedy.json");
    golden_ = nlohmann::json::parse(stream);
    auto backend = MakeCpuBackend({.threads = 2});
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
    auto file = OpenWeightFile(ASYMSERVE_MODEL_FILE);
    ASSERT_TRUE(file.ok()) << file.status();
    auto model = LlamaModel::Load(**file, *backend_, {.max_positions = 64 * kPages});
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    const ModelConfig& config = model_->config();
    const KvShape shape{config.layers, config.attention.kv_heads, config.attention.head_size};
    ASSERT_TRUE(backend_->KvInit(testing::ExactKvSetup(shape, kPages)).ok());
  }

  // Runs tokens at positions [begin, begin + n) of the only sequence; logits of the last.
  std::vector<float> Run(std::vector<int32_t> tokens, int32_t begin) {
    std::vector<int32_t> positions;
    for (size_t i = 0; i < tokens.size(); ++i) positions.push_back(begin + static_cast<int32_t>(i));
    const std::vector<int32_t> token_offset = {0, static_cast<int32_t>(tokens.size())};
    std::vector<KvPage> pages;
    for (int32_t page = 0; page < kPages; ++page) pages.push_back({.near = PageId{page}});
    const std::vector<int32_t> page_offset = {0, kPages};
    const std::vector<int32_t> rows = {static_cast<int32_t>(tokens.size()) - 1};
    const auto logits =
        model_->Forward({tokens, {positions, token_offset, pages, page_offset}, rows});
    EXPECT_TRUE(logits.ok()) << logits.status();
    const float* values = logits->As<float>();
    return {values, values + model_->vocabulary()};
  }

  nlohmann::json golden_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
};

TEST_F(Smollm2GoldenTest, LogitsAndGreedyContinuationsAgreeWithTheReference) {
  double worst = 0;
  for (const auto& test : golden_["cases"]) {
    const auto prompt = test["prompt_ids"].get<std::vector<int32_t>>();
    std::vector<float> logits = Run(prompt, 0);
    for (size_t i = 0; i < test["logit_ids"].size(); ++i) {
      const double reference = test["logits"][i];
      const double ours = static_cast<double>(logits[test["logit_ids"][i].get<size_t>()]);
      worst = std::max(worst, std::abs(ours - reference));
    }
    const auto continuation = test["continuation"].get<std::vector<int32_t>>();
    // Along the reference's text, so that what follows a close call is compared, too.
    for (size_t step = 0; step < continuation.size(); ++step) {
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      const double margin = test["margins"][step];
      if (best != continuation[step]) {
        std::cout << test["prompt"] << " leaves the reference at step " << step
                  << ", where its top-2 margin is " << margin << '\n';
        EXPECT_LT(margin, kMaxLogitError) << "step " << step << " of " << test["prompt"];
      }
      logits = Run({continuation[step]}, static_cast<int32_t>(prompt.size() + step));
    }
  }
  std::cout << "largest logit error: " << worst << '\n';
  EXPECT_LT(worst, kMaxLogitError);
  EXPECT_GT(worst, 0) << "nothing was compared";
}

}  // namespace
}  // namespace asymserve
