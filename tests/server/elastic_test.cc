// kv.elastic of a real server that is short of memory, and what clients, scrapes and the log learn.

#include <gmock/gmock.h>

#include <vector>

#include "tests/server/process_fixture.h"
#include "tests/server/toy_tier.h"

namespace asymserve::testing {
namespace {

class ElasticServerTest : public ProcessFixture {
 protected:
  /// A server that holds few pages, in a tier of which every sealed page first has a refinement.
  void StartShortOfMemory(bool elastic) {
    ToyModel model;
    model.context_length = kContext;
    model.vocabulary = kVocabulary;
    model.head_size = 8;
    WriteToyGguf(model, model_path_);
    WriteToyTier(model_path_);
    Start({"kv.quality.max_mean_kl=0", "kv.quality.max_copy_loss=0", "engine.context_tokens=512",
           "kv.prefix_cache=false", "engine.max_running=6", "engine.kv_memory_bytes=100KiB",
           elastic ? "kv.elastic=true" : "kv.elastic=false"});
  }

  /// The ends of six sequences that run together.
  std::vector<v1::Final> RunSix(v1::KvPrecision precision) {
    v1::GenerateRequest request = Request("once upon a time", 450);
    request.set_n(6);
    request.set_kv_precision(precision);
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    const grpc::Status status = stub_->GenerateUnary(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(response.sequences_size(), 6);
    std::vector<v1::Final> finals;
    for (const v1::GenerateResponse& one : response.sequences()) finals.push_back(one.final());
    return finals;
  }

  static int Degraded(const std::vector<v1::Final>& finals) {
    int degraded = 0;
    for (const v1::Final& final : finals) degraded += final.has_degraded_from_token() ? 1 : 0;
    return degraded;
  }
};

TEST_F(ElasticServerTest, ClientsScrapesAndTheLogAreToldWhoseTextIsLessSure) {
  ASSERT_NO_FATAL_FAILURE(StartShortOfMemory(true));
  const std::vector<v1::Final> finals = RunSix(v1::KV_PRECISION_UNSPECIFIED);
  EXPECT_GT(Degraded(finals), 0) << server_->log();
  for (const v1::Final& final : finals) {
    EXPECT_EQ(final.usage().generated_tokens(), 450);
    if (!final.has_degraded_from_token()) continue;
    EXPECT_GE(final.degraded_from_token(), 64) << "what is not sealed was given up";
    EXPECT_LT(final.degraded_from_token(), final.usage().prompt_tokens() + 450);
  }
  EXPECT_EQ(server_->Metrics()["asymserve_kv_degraded_sequences_total"], Degraded(finals));
  EXPECT_TRUE(server_->WaitForLog("kv=degraded"));
}

TEST_F(ElasticServerTest, NobodysTextIsUnlessTheOperatorAllowsIt) {
  ASSERT_NO_FATAL_FAILURE(StartShortOfMemory(false));
  EXPECT_EQ(Degraded(RunSix(v1::KV_PRECISION_UNSPECIFIED)), 0);
  auto metrics = server_->Metrics();
  EXPECT_EQ(metrics["asymserve_kv_degraded_sequences_total"], 0);
  EXPECT_GT(metrics["asymserve_preemptions_total"], 0) << "there was room for all";
}

TEST_F(ElasticServerTest, AnExactRequestsIsNever) {
  ASSERT_NO_FATAL_FAILURE(StartShortOfMemory(true));
  EXPECT_EQ(Degraded(RunSix(v1::KV_PRECISION_EXACT)), 0);
  EXPECT_EQ(server_->Metrics()["asymserve_kv_degraded_sequences_total"], 0);
}

}  // namespace
}  // namespace asymserve::testing
