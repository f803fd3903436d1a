// The same weights as a GGUF file and as a Hugging Face folder are the same model: the order of
// rotary channels, the rope scaling and the names differ, the logits do not.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/engine/model/one_sequence.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve {
namespace {

using testing::OneSequence;
using testing::TempDir;
using testing::ToyModel;
using testing::WriteToyFolder;
using testing::WriteToyGguf;

const std::vector<int32_t> kTokens = {5, 270, 99, 100, 32, 5, 5, 261, 17};

// fp32 sums over rotary channels in another order.
constexpr float kMaxError = 2e-3f;

struct Case {
  const char* name;
  ToyModel toy;
};

std::vector<Case> Cases() {
  const RopeScaling llama3 = {.kind = RopeScaling::Kind::kLlama3,
                              .factor = 8,
                              .low_freq_factor = 1,
                              .high_freq_factor = 4,
                              .original_context = 64};
  const RopeScaling linear = {.kind = RopeScaling::Kind::kLinear, .factor = 4};
  return {
      {"llama", {.seed = 11}},
      {"llama, output of its own", {.tied_output = false, .seed = 12}},
      {"llama, head size 80, one key head", {.kv_heads = 1, .head_size = 80, .seed = 13}},
      {"llama, llama3 rope scaling", {.rope_scaling = llama3, .seed = 14}},
      {"llama, linear rope scaling", {.rope_scaling = linear, .seed = 15}},
      {"llama, 16 bit",
       {.dtype = DType::kBF16,
        .embedding_dtype = DType::kF16,
        .vector_dtype = DType::kBF16,
        .seed = 16}},
      {"qwen2", {.architecture = "qwen2", .seed = 17}},
      {"qwen3, head size 24", {.architecture = "qwen3", .head_size = 24, .seed = 18}},
  };
}

TEST(FormatsAgreeTest, OnTheLogitsOfEveryFamily) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.name);
    const TempDir folder;
    WriteToyGguf(c.toy, folder.Path("toy.gguf"));
    WriteToyFolder(c.toy, folder.path().string(), 2);
    OneSequence gguf(folder.Path("toy.gguf"));
    OneSequence hf(folder.path().string());
    ASSERT_NE(gguf.model(), nullptr);
    ASSERT_NE(hf.model(), nullptr);
    const std::vector<float> a = gguf.Run(kTokens);
    const std::vector<float> b = hf.Run(kTokens);
    ASSERT_EQ(a.size(), b.size());
    float largest = 0;
    float error = 0;
    for (size_t id = 0; id < a.size(); ++id) {
      largest = std::max(largest, std::abs(a[id]));
      error = std::max(error, std::abs(a[id] - b[id]));
    }
    EXPECT_LT(error, kMaxError);
    EXPECT_GT(largest, 1) << "the logits are all near zero, nothing was compared";
  }
}

TEST(FormatsAgreeTest, ExceptWhenAFeatureIsTakenAway) {
  const TempDir folder;
  WriteToyGguf({.seed = 11}, folder.Path("plain.gguf"));
  ToyModel scaled{.seed = 11};
  scaled.rope_scaling = {.kind = RopeScaling::Kind::kLinear, .factor = 4};
  WriteToyGguf(scaled, folder.Path("scaled.gguf"));
  OneSequence plain(folder.Path("plain.gguf"));
  OneSequence other(folder.Path("scaled.gguf"));
  ASSERT_NE(plain.model(), nullptr);
  ASSERT_NE(other.model(), nullptr);
  const std::vector<float> a = plain.Run(kTokens);
  const std::vector<float> b = other.Run(kTokens);
  float error = 0;
  for (size_t id = 0; id < a.size(); ++id) error = std::max(error, std::abs(a[id] - b[id]));
  EXPECT_GT(error, 10 * kMaxError) << "the test above could not see rope scaling";
}

}  // namespace
}  // namespace asymserve
