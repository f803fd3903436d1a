// A trained model of 260 K parameters against an independent forward pass in float64
// (tests/golden/make_stories260k.py).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iostream>

#include <nlohmann/json.hpp>

#include "tests/engine/model/one_sequence.h"

namespace asymserve {
namespace {

// Largest difference of a logit to the reference; logits span about 40. Keys and values are stored
// as fp16, the reference keeps them in float64.
constexpr double kMaxLogitError = 0.05;

TEST(Stories260kGoldenTest, TellsTheStoriesOfTheReference) {
  std::ifstream stream(ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.json");
  const auto golden = nlohmann::json::parse(stream);
  double worst = 0;
  for (const auto& test : golden) {
    SCOPED_TRACE(test["text"].get<std::string>());
    testing::OneSequence sequence(ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf");
    ASSERT_NE(sequence.model(), nullptr);
    std::vector<float> logits = sequence.Run(test["prompt"].get<std::vector<int32_t>>());
    const auto reference = test["logits_after_prompt"].get<std::vector<double>>();
    ASSERT_EQ(logits.size(), reference.size());
    for (size_t id = 0; id < logits.size(); ++id) {
      worst = std::max(worst, std::abs(static_cast<double>(logits[id]) - reference[id]));
    }
    const auto greedy = test["greedy"].get<std::vector<int32_t>>();
    for (size_t step = 0; step < greedy.size(); ++step) {
      const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
      if (best != greedy[step]) {
        EXPECT_LT(test["margins"][step].get<double>(), 2 * kMaxLogitError) << "step " << step;
        break;
      }
      logits = sequence.Run({greedy[step]});
    }
  }
  std::cout << "largest logit error: " << worst << '\n';
  EXPECT_LT(worst, kMaxLogitError);
}

}  // namespace
}  // namespace asymserve
