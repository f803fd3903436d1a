// Which test moves each family of a scrape: one without a test fails here.

#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

class MetricsFamiliesTest : public ProcessFixture {};

// Each family of a scrape, and a test that moves it or compares it with something else.
const std::map<std::string, std::string> kTestOfFamily = {
    {"asymserve_admission_blocked_steps_total",
     "MetricsValuesTest.APreemptionIsCountedWithTheTokensThatItCosts"},
    {"asymserve_api_key_not_after_seconds",
     "ApiKeyTest.AKeyForSomeDaysSaysWhenItEndsAndTheMetricsSayWhenTheFirstDoes"},
    {"asymserve_api_keys", "ApiKeyTest.AMadeKeyOpensTheServerAndIsNowhereButInItsHoldersHands"},
    {"asymserve_build_info", "MetricsValuesTest.WhatIsFixedAtTheStartIsAsTheServerSaysElsewhere"},
    {"asymserve_cached_tokens_total",
     "MetricsValuesTest.APromptThatComesAgainIsTakenFromSlabsOfTheCache"},
    {"asymserve_cancel_to_free_seconds", "LoadTest.ADisconnectFreesThePages"},
    {"asymserve_device_info", "DeviceTest.TheCpuIsTakenWithoutLookingForAGpu"},
    {"asymserve_drain_budget_seconds",
     "LiveConfigTest.SighupAppliesWhatCanChangeAndNamesWhatNeedsARestart"},
    {"asymserve_draining_seconds", "MetricsValuesTest.ADrainCountsItsSeconds"},
    {"asymserve_end_to_end_seconds",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_generated_tokens_total",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_inter_token_seconds",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_kv_bytes_per_element",
     "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_canary_kl_nats", "CanaryTest.EachTokenOfAChosenRequestIsCountedOnce"},
    {"asymserve_kv_canary_rate",
     "LiveConfigTest.SighupAppliesWhatCanChangeAndNamesWhatNeedsARestart"},
    {"asymserve_kv_canary_requests_total", "CanaryTest.ARequestThatIsCancelledIsNotCompared"},
    {"asymserve_kv_canary_tokens_total", "CanaryTest.EachTokenOfAChosenRequestIsCountedOnce"},
    {"asymserve_kv_capacity_sequences",
     "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_capacity_tokens",
     "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_degraded_sequences_total",
     "ElasticServerTest.ClientsScrapesAndTheLogAreToldWhoseTextIsLessSure"},
    {"asymserve_kv_info", "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_loss_estimate_nats",
     "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_loss_limit_nats",
     "KvQualityTest.ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown"},
    {"asymserve_kv_pages", "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_kv_slabs", "MetricsValuesTest.TheCacheCountsWhatItGivesUp"},
    {"asymserve_kv_used_bytes",
     "MetricsValuesTest.BytesOfTheKvCacheAreThoseOfTheRecordsThatASequenceHolds"},
    {"asymserve_memory_ledger_bytes",
     "MemoryMetricsTest.TheKernelCountsWhatWasPlannedBeforeAndUnderLoad"},
    {"asymserve_memory_measured_bytes",
     "MemoryMetricsTest.TheKernelCountsWhatWasPlannedBeforeAndUnderLoad"},
    {"asymserve_memory_planned_bytes",
     "MemoryMetricsTest.TheKernelCountsWhatWasPlannedBeforeAndUnderLoad"},
    {"asymserve_memory_process_resident_bytes",
     "MemoryMetricsTest.TheKernelCountsWhatWasPlannedBeforeAndUnderLoad"},
    {"asymserve_memory_resident_bytes",
     "MemoryMetricsTest.TheKernelCountsWhatWasPlannedBeforeAndUnderLoad"},
    {"asymserve_open_calls", "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_preemptions_total",
     "MetricsValuesTest.APreemptionIsCountedWithTheTokensThatItCosts"},
    {"asymserve_prefix_cache_evictions_total", "MetricsValuesTest.TheCacheCountsWhatItGivesUp"},
    {"asymserve_prompt_tokens_total",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_queue_seconds", "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_recomputed_tokens_total",
     "MetricsValuesTest.APreemptionIsCountedWithTheTokensThatItCosts"},
    {"asymserve_refusal_seconds",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_refused_connections_total",
     "MetricsValuesTest.ConnectionsBeyondTheDescriptorsAreRefusedAndCounted"},
    {"asymserve_rejections_total",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_reloads_total", "ApiKeyTest.AChangedFileIsReadAgainAndABrokenOneKeepsTheKeys"},
    {"asymserve_requests_total", "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_seconds_since_last_step", "MetricsValuesTest.TheTimeSinceTheLastStepRunsOn"},
    {"asymserve_sequences_finished_total", "MetricsValuesTest.EverySequenceCountsByWhyItEnded"},
    {"asymserve_sequences_running",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_sequences_waiting",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_slow_readers_total",
     "LoadTest.SixtyFourStreamsWithCancelsDeadlinesAndSlowReadersLeaveNothingBehind"},
    {"asymserve_start_time_seconds",
     "MetricsValuesTest.WhatIsFixedAtTheStartIsAsTheServerSaysElsewhere"},
    {"asymserve_startup_seconds",
     "MetricsValuesTest.WhatIsFixedAtTheStartIsAsTheServerSaysElsewhere"},
    {"asymserve_step_seconds", "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_steps_total", "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_tenant_generated_tokens_total",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_tenant_prompt_tokens_total",
     "MetricsValuesTest.APromptThatComesAgainIsTakenFromSlabsOfTheCache"},
    {"asymserve_tenant_sequences_total",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_tenant_sequences_waiting",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"asymserve_time_to_first_token_seconds",
     "MetricsValuesTest.ARequestMovesEachMetricByWhatItsAnswerSays"},
    {"asymserve_tls_certificate_not_after_seconds",
     "TlsTest.OnlyClientsThatSpeakTlsAndTrustTheAuthorityGetThrough"},
    {"asymserve_tls_client_authority_not_after_seconds",
     "TlsTest.ClientsOfAnExpiredAuthorityAreRefusedAndTheMetricsTellBefore"},
    {"gen_ai_server_request_duration_seconds",
     "MetricsValuesTest.ACallIsOneObservationOfItsOperationWhateverItsSequences"},
    {"gen_ai_server_time_per_output_token_seconds",
     "MetricsValuesTest.ACallIsOneObservationOfItsOperationWhateverItsSequences"},
    {"gen_ai_server_time_to_first_token_seconds",
     "MetricsValuesTest.ACallIsOneObservationOfItsOperationWhateverItsSequences"},
    {"vllm:cache_config_info", "MetricsValuesTest.TheCacheCountsWhatItGivesUp"},
    {"vllm:kv_cache_usage_perc",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"vllm:num_requests_running",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
    {"vllm:num_requests_waiting",
     "MetricsValuesTest.WhoRunsAndWhoWaitsIsInTheGaugesAndTheirAliases"},
};

/// Of this program, whatever the filter runs.
std::set<std::string> NamesOfTests() {
  std::set<std::string> names;
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  for (int i = 0; i < all.total_test_suite_count(); ++i) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(i);
    for (int j = 0; j < suite.total_test_count(); ++j) {
      names.insert(std::string(suite.name()) + "." + suite.GetTestInfo(j)->name());
    }
  }
  return names;
}

TEST_F(MetricsFamiliesTest, EachOfAScrapeHasATestAndIsThereOnce) {
  ASSERT_NO_FATAL_FAILURE(Start());
  constexpr std::string_view kPrefix = "# TYPE ";
  std::set<std::string> families;
  std::istringstream lines(server_->Scrape());
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(kPrefix)) continue;
    const std::string rest = line.substr(kPrefix.size());
    const std::string family = rest.substr(0, rest.find(' '));
    EXPECT_TRUE(families.insert(family).second) << family << " is there twice";
    EXPECT_TRUE(kTestOfFamily.contains(family)) << "no test is named for " << family;
  }
  const std::set<std::string> tests = NamesOfTests();
  // Only where the model runs on a device with memory of its own.
  EXPECT_FALSE(families.contains("asymserve_device_memory_bytes"));
  EXPECT_TRUE(tests.contains("SimtDeviceTest.CudaAndAutoServeOnTheDeviceThatTheLibraryHas"));
  for (const auto& [family, test] : kTestOfFamily) {
    EXPECT_TRUE(families.contains(family)) << family << " is not in the scrape";
    EXPECT_TRUE(tests.contains(test)) << family << ": there is no test " << test;
  }
}

}  // namespace
}  // namespace asymserve::testing
