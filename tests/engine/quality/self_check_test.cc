#include "engine/quality/self_check.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/model/llama.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/support/toy_model.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

class SelfCheckTest : public ::testing::Test {
 protected:
  void Load(int32_t context_tokens) {
    testing::ToyModel toy;
    toy.context_length = context_tokens;
    WriteToyGguf(toy, directory_.Path("toy.gguf"));
    auto backend = MakeCpuBackend({.threads = 1});
    ASSERT_THAT(backend, IsOk());
    backend_ = *std::move(backend);
    const auto file = OpenWeightFile(directory_.Path("toy.gguf"));
    ASSERT_THAT(file, IsOk());
    auto model = LlamaModel::Load(**file, *backend_, {});
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    auto tokenizer = Tokenizer::Create((*file)->tokenizer_spec());
    ASSERT_THAT(tokenizer, IsOk());
    tokenizer_ = *std::move(tokenizer);
  }

  absl::StatusOr<double> Kl(const std::string& scheme) {
    const ModelConfig& config = model_->config();
    KvSetup setup;
    setup.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
    setup.scheme = *NamedKvScheme(scheme, setup.shape);
    return SelfCheckKl(*model_, *backend_, setup, *tokenizer_);
  }

  const testing::TempDir directory_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<LlamaModel> model_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(SelfCheckTest, FewerBitsCostMoreAndExactCostsNothing) {
  ASSERT_NO_FATAL_FAILURE(Load(kSelfCheckTokens));
  const auto exact = Kl("exact"), wide = Kl("fit-4/4"), narrow = Kl("fit-1/1");
  ASSERT_THAT(exact, IsOk());
  ASSERT_THAT(wide, IsOk());
  ASSERT_THAT(narrow, IsOk());
  EXPECT_EQ(*exact, 0);
  EXPECT_GT(*wide, 0);
  EXPECT_GT(*narrow, 2 * *wide);
}

TEST_F(SelfCheckTest, AContextThatIsTooShortIsRefusedWithItsLength) {
  ASSERT_NO_FATAL_FAILURE(Load(kSelfCheckTokens - 1));
  EXPECT_THAT(Kl("fit-2/2"), FailsWith(absl::StatusCode::kFailedPrecondition,
                                       "needs 1536 tokens, the context has 1535"));
}

TEST(SelfCheckTextTest, IsLongEnoughForTokensOfFiveCharacters) {
  EXPECT_GE(SelfCheckText().size(), size_t{5} * kSelfCheckTokens);
}

}  // namespace
}  // namespace asymserve
