// A toy model on the CUDA backend, whose kernels run on tests/simt, against the CPU backend.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/engine/backend/cuda/device/toy_server.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::Largest;
using ::asymserve::testing::MakeCpu;
using ::asymserve::testing::MakeCuda;
using ::asymserve::testing::OddToy;
using ::asymserve::testing::ToyModel;
using ::asymserve::testing::ToyPrompt;
using ::asymserve::testing::ToyServer;
using ::asymserve::testing::WideHeadToy;
using ::testing::IsEmpty;

struct Case {
  const char* name;
  const char* scheme = "exact";
  const char* architecture = "llama";
  DType dtype = DType::kF32;
  DType embedding = DType::kF32;  // of the table, which is the output, too
  int32_t width = 36;
  int32_t prompt = 150;
  int32_t head_size = 8;  // not 8: WideHeadToy
  // By what a logit differs at most: the backends sum in other orders, and the CPU rounds
  // activations (of quantized weights) and queries (over codes) to integers. Tensor cores, of wide
  // heads, are given queries and weights of 11 bits.
  double largest_difference = 0;
};

double Distance(std::span<const float> a, std::span<const float> b) {
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) worst = std::max(worst, std::abs(double{a[i]} - b[i]));
  return worst;
}

class CudaModelTest : public ::testing::TestWithParam<Case> {};

TEST_P(CudaModelTest, GivesTheTokensOfTheCpu) {
  const Case& test = GetParam();
  const testing::TempDir directory;
  const std::string path = directory.Path("toy.gguf");
  ToyModel toy = test.head_size == 8 ? OddToy() : WideHeadToy(test.head_size);
  toy.architecture = test.architecture;
  toy.dtype = test.dtype;
  toy.embedding_dtype = test.embedding;
  toy.width = test.width;
  testing::WriteToyGguf(toy, path);

  const std::unique_ptr<Backend> cpu = MakeCpu();
  const std::unique_ptr<Backend> exact_cpu = MakeCpu();
  const auto log = std::make_shared<DeviceLog>();
  {
    const std::unique_ptr<Backend> cuda = MakeCuda(log);
    ToyServer expected(*cpu, path, test.scheme);
    ToyServer exact(*exact_cpu, path, "exact");
    ToyServer actual(*cuda, path, test.scheme);
    ASSERT_THAT(expected.status(), IsOk());
    ASSERT_THAT(exact.status(), IsOk());
    ASSERT_THAT(actual.status(), IsOk());
    std::vector<int32_t> tokens = ToyPrompt(test.prompt, 3, toy.vocabulary);
    double worst = 0;
    double of_scheme = 0;
    float span = 0;
    constexpr int32_t kGenerated = 24;
    for (int32_t step = 0; step < kGenerated; ++step) {
      const auto a = expected.Next(tokens);
      const auto b = actual.Next(tokens);
      const auto e = exact.Next(tokens);
      ASSERT_THAT(a, IsOk());
      ASSERT_THAT(b, IsOk());
      ASSERT_THAT(e, IsOk());
      ASSERT_EQ(a->size(), b->size());
      worst = std::max(worst, Distance(*a, *b));
      of_scheme = std::max(of_scheme, Distance(*a, *e));
      span = std::max(
          span, *std::max_element(a->begin(), a->end()) - *std::min_element(a->begin(), a->end()));
      const size_t token = Largest(*a);
      const size_t other = Largest(*b);
      EXPECT_TRUE(token == other || (*a)[token] - (*a)[other] < 2 * test.largest_difference)
          << "token " << step;
      tokens = {static_cast<int32_t>(token)};
    }
    std::cout << "logits span " << span << "; largest difference: " << worst
              << "; what the scheme changes: " << of_scheme << '\n';
    EXPECT_LT(worst, test.largest_difference);
    if (test.scheme != std::string("exact")) {
      EXPECT_GT(of_scheme, 4 * test.largest_difference);
    }
  }
  EXPECT_THAT(log->misuse, IsEmpty());
  EXPECT_TRUE(log->empty());
}

INSTANTIATE_TEST_SUITE_P(
    OfEveryKind, CudaModelTest,
    ::testing::Values(
        Case{.name = "Exact", .largest_difference = 1e-3},
        Case{.name = "Int8", .scheme = "int8", .largest_difference = 0.005},
        Case{.name = "Kivi2", .scheme = "kivi-2", .prompt = 300, .largest_difference = 0.01},
        Case{.name = "Fitted", .scheme = "fit-2/1", .prompt = 300, .largest_difference = 0.15},
        Case{.name = "Learned", .scheme = "learned", .prompt = 300, .largest_difference = 0.2},
        Case{.name = "Qwen2Brain16",
             .architecture = "qwen2",
             .dtype = DType::kBF16,
             .largest_difference = 1e-3},
        Case{.name = "Qwen3Half",
             .architecture = "qwen3",
             .dtype = DType::kF16,
             .largest_difference = 1e-3},
        Case{.name = "ExactWide", .head_size = 64, .largest_difference = 0.01},
        Case{.name = "Int8Wide", .scheme = "int8", .head_size = 128, .largest_difference = 0.01},
        Case{.name = "LearnedWide",
             .scheme = "learned",
             .prompt = 300,
             .head_size = 64,
             .largest_difference = 0.1},
        Case{.name = "HalfTensorCores",
             .dtype = DType::kF16,
             .width = 64,
             .largest_difference = 0.02},
        Case{.name = "Brain16TensorCores",
             .dtype = DType::kBF16,
             .width = 64,
             .largest_difference = 0.02},
        Case{.name = "Q41", .dtype = DType::kQ4_1, .width = 64, .largest_difference = 0.4},
        Case{.name = "Q40Tied",
             .dtype = DType::kQ4_0,
             .embedding = DType::kQ4_0,
             .width = 96,
             .largest_difference = 0.4},
        Case{.name = "Q4KTiedToQ41",
             .dtype = DType::kQ4K,
             .embedding = DType::kQ4_1,
             .width = 256,
             .largest_difference = 0.8},
        Case{.name = "Q5K", .dtype = DType::kQ5K, .width = 256, .largest_difference = 0.8},
        Case{.name = "Q6K", .dtype = DType::kQ6K, .width = 256, .largest_difference = 0.8},
        Case{.name = "Q80", .dtype = DType::kQ8_0, .width = 64, .largest_difference = 0.4}),
    [](const auto& test) { return std::string(test.param.name); });

/// The logits of a prompt and of two tokens after it.
std::vector<float> LogitsOf(const std::string& path, const std::string& scheme,
                            const cuda::CudaOptions& options = {}) {
  const auto log = std::make_shared<DeviceLog>();
  const std::unique_ptr<Backend> backend = MakeCuda(log, options);
  ToyServer server(*backend, path, scheme);
  EXPECT_THAT(server.status(), IsOk());
  std::vector<float> all;
  for (const auto& tokens :
       {ToyPrompt(140, 5, 291), std::vector<int32_t>{7}, std::vector<int32_t>{8}}) {
    const auto logits = server.Next(tokens);
    EXPECT_THAT(logits, IsOk());
    if (logits.ok()) all.insert(all.end(), logits->begin(), logits->end());
  }
  EXPECT_THAT(log->misuse, IsEmpty());
  return all;
}

TEST(CudaStepsTest, AreTheSameWhenTheyAreCutIntoPartsAndStagedInPieces) {
  const testing::TempDir directory;
  const std::string path = directory.Path("toy.gguf");
  const std::vector<std::pair<ToyModel, const char*>> cases = {{OddToy(), "kivi-2"},
                                                               {WideHeadToy(), "int8"}};
  for (const auto& [toy, scheme] : cases) {
    testing::WriteToyGguf(toy, path);
    const std::vector<float> whole = LogitsOf(path, scheme);
    ASSERT_EQ(whole.size(), 3u * 291);
    // 10 pages are 2 splits; rows of a step are taken up to three at a time.
    EXPECT_EQ(LogitsOf(path, scheme, {.slice_pages = 10, .slice_work = 3}), whole) << scheme;
    EXPECT_EQ(LogitsOf(path, scheme, {.staging_bytes = 80}), whole) << scheme;
  }
}

TEST(CudaStepsTest, TensorCoresAreUsedWhereTheyCanBeAndArePlainAttentionToSixteenBits) {
  const testing::TempDir directory;
  const std::string path = directory.Path("toy.gguf");
  testing::WriteToyGguf(WideHeadToy(), path);
  const cuda::CudaOptions plain = {.plain_attention = true};
  for (const char* scheme : {"exact", "int8", "learned"}) {
    const std::vector<float> expected = LogitsOf(path, scheme, plain);
    const std::vector<float> got = LogitsOf(path, scheme);
    EXPECT_GT(Distance(got, expected), 0) << scheme;
    EXPECT_LT(Distance(got, expected), 0.01) << scheme;
  }
  EXPECT_EQ(LogitsOf(path, "kivi-2"), LogitsOf(path, "kivi-2", plain));
}

TEST(CudaStepsTest, ASequenceThatIsTooLongForAPartIsAnError) {
  const testing::TempDir directory;
  const std::string path = directory.Path("toy.gguf");
  testing::WriteToyGguf(OddToy(), path);
  const auto log = std::make_shared<DeviceLog>();
  const std::unique_ptr<Backend> backend = MakeCuda(log, {.slice_pages = 2});
  ToyServer server(*backend, path, "exact");
  ASSERT_THAT(server.status(), IsOk());
  EXPECT_THAT(server.Next(ToyPrompt(140, 5, 291)),
              testing::FailsWith(absl::StatusCode::kInternal, "holds 2 pages of a sequence"));
}

}  // namespace
}  // namespace asymserve
