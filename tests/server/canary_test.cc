// What a server that compares requests with exact says of it, as a process.

#include <gmock/gmock.h>

#include <filesystem>

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;

class CanaryTest : public ProcessFixture {
 protected:
  using Samples = std::map<std::string, double>;

  static double Result(const Samples& metrics, const std::string& labels, const char* result) {
    return metrics.at("asymserve_kv_canary_requests_total{" + labels + ",result=\"" + result +
                      "\"}");
  }
  /// Once so many requests are compared.
  Samples MetricsOnceFinished(const std::string& labels, double finished) {
    EXPECT_TRUE(
        Eventually([&] { return Result(server_->Metrics(), labels, "finished") >= finished; }));
    return server_->Metrics();  // in one scrape, the tokens are read before that
  }
};

TEST_F(CanaryTest, EachTokenOfAChosenRequestIsCountedOnce) {
  ASSERT_NO_FATAL_FAILURE(
      Start({"kv.scheme=fit-2/2", "model.name=toy", "kv.quality.canary_rate=1"}));
  EXPECT_EQ(server_->LogValue("kv_canary", "rate"), "1");
  const std::string labels = R"(model="toy",scheme="fit-2/2")";
  EXPECT_EQ(server_->Metrics().at("asymserve_kv_canary_rate{" + labels + "}"), 1);
  double tokens = 0;
  for (const int32_t length : {1, 40, 300}) {
    ASSERT_TRUE(Unary(Request("once upon a time", length)).ok());
    tokens += length;
    const double finished = length == 1 ? 1 : length == 40 ? 2 : 3;
    const Samples metrics = MetricsOnceFinished(labels, finished);
    EXPECT_EQ(metrics.at("asymserve_kv_canary_kl_nats_count{" + labels + "}"), tokens);
    EXPECT_EQ(metrics.at("asymserve_kv_canary_kl_nats_bucket{" + labels + ",le=\"+Inf\"}"), tokens);
    EXPECT_EQ(
        metrics.at("asymserve_kv_canary_tokens_total{" + labels + ",same_top1=\"true\"}") +
            metrics.at("asymserve_kv_canary_tokens_total{" + labels + ",same_top1=\"false\"}"),
        tokens);
  }
  EXPECT_GT(server_->Metrics().at("asymserve_kv_canary_kl_nats_sum{" + labels + "}"), 0);
}

TEST_F(CanaryTest, ARequestThatIsCancelledIsNotCompared) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(
      Start({"kv.scheme=fit-2/2", "model.name=toy", "kv.quality.canary_rate=1"}));
  {
    grpc::ClientContext context;
    const auto reader = stub_->Generate(&context, Request("once upon a time", 4000));
    v1::GenerateResponse message;
    ASSERT_TRUE(reader->Read(&message));
    context.TryCancel();
    reader->Finish();
  }
  const std::string labels = R"(model="toy",scheme="fit-2/2")";
  EXPECT_TRUE(Eventually([&] { return Result(server_->Metrics(), labels, "incomplete") == 1; }));
  EXPECT_EQ(server_->Metrics().at("asymserve_kv_canary_kl_nats_count{" + labels + "}"), 0);
}

TEST_F(CanaryTest, IsOffWithAnExactCacheAndSaysWhy) {
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=exact", "model.name=toy", "kv.quality.canary_rate=1"}));
  EXPECT_EQ(server_->LogValue("kv_canary", "rate"), "0");
  EXPECT_THAT(server_->log(), HasSubstr("off: the KV cache is exact"));
  ASSERT_TRUE(Unary(Request("once upon a time", 20)).ok());
  const Samples metrics = server_->Metrics();
  const std::string labels = R"(model="toy",scheme="exact")";
  EXPECT_EQ(metrics.at("asymserve_kv_canary_rate{" + labels + "}"), 0);
  for (const auto& [name, value] : metrics) {
    EXPECT_TRUE(!name.starts_with("asymserve_kv_canary_") || value == 0) << name;
  }
}

TEST_F(CanaryTest, IsOffWhenTheRateIsZeroAndOnByDefault) {
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=fit-2/2", "kv.quality.canary_rate=0"}));
  EXPECT_THAT(server_->log(), HasSubstr("off: kv.quality.canary_rate is 0"));
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=fit-2/2"}));
  EXPECT_EQ(server_->LogValue("kv_canary", "rate"), "0.001");
}

TEST_F(CanaryTest, TheDefaultModelLosesSomethingToItsDefaultTier) {
  const std::string model = ASYMSERVE_SOURCE_DIR "/.cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  if (!std::filesystem::exists(model)) GTEST_SKIP() << "no " << model;
  const std::string profile =
      ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";
  server_ = std::make_unique<ServerProcess>(
      std::vector<std::string>{"--model", model, "--set", "engine.kv_memory_bytes=128MiB", "--set",
                               "engine.context_tokens=2048", "--set", "kv.profile=" + profile,
                               "--set", "kv.quality.canary_rate=1", "--set", "model.name=smol"});
  ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
  stub_ = server_->Stub();
  std::string prompt;
  for (int i = 0; i < 12; ++i) {
    prompt += "The river rose in the night, and in the morning the bridge was gone. ";
  }
  ASSERT_TRUE(Unary(Request(prompt, 16)).ok());
  const std::string labels = R"(model="smol",scheme="balanced")";
  const Samples metrics = MetricsOnceFinished(labels, 1);
  const double kl = metrics.at("asymserve_kv_canary_kl_nats_sum{" + labels + "}") / 16;
  EXPECT_EQ(metrics.at("asymserve_kv_canary_kl_nats_count{" + labels + "}"), 16);
  EXPECT_GT(kl, 1e-4);
  EXPECT_LT(kl, 0.3);
}

}  // namespace
}  // namespace asymserve::testing
