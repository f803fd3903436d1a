#include "server/metrics_exporter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "prometheus/text_serializer.h"

#include "server/metric_families.h"
#include "tests/server/service_fixture.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsExporterTest : public ServiceFixture {
 protected:
  std::string Text() const { return prometheus::TextSerializer().Serialize(exporter_.Collect()); }

  MetricsExporter exporter_{metrics_};
};

TEST_F(MetricsExporterTest, BeforeAModelIsServedOnlyTheServersFamiliesExist) {
  EXPECT_THAT(Text(), HasSubstr("asymserve_build_info{version=\"0.1.0\"} 1"));
  EXPECT_THAT(Text(), HasSubstr("\nasymserve_start_time_seconds "));
  EXPECT_THAT(Text(), HasSubstr("asymserve_requests_total{method=\"Chat\",code=\"OK\"} 0"));
  EXPECT_THAT(Text(), Not(HasSubstr("asymserve_kv_pages")));
}

TEST_F(MetricsExporterTest, FailuresCountFromZeroAndOtherCodesAppearWithTheirFirstCall) {
  EXPECT_THAT(Text(), HasSubstr("asymserve_requests_total{method=\"Chat\",code=\"INTERNAL\"} 0\n"));
  EXPECT_THAT(Text(), Not(HasSubstr("CANCELLED")));
}

TEST_F(MetricsExporterTest, ADrainShowsHowLongItHasTaken) {
  ASSERT_NO_FATAL_FAILURE(Start());
  metrics_.drain_budget_ms.Set(2500);
  EXPECT_THAT(Text(), HasSubstr("asymserve_drain_budget_seconds 2.5\n"));
  EXPECT_THAT(Text(), HasSubstr("asymserve_draining_seconds 0\n"));
  service_->StartDrain();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_THAT(Text(), Not(HasSubstr("asymserve_draining_seconds 0\n")));
}

TEST_F(MetricsExporterTest, CountsWhatTheClientsSaw) {
  ASSERT_NO_FATAL_FAILURE(Start());
  exporter_.StartServing(served_, {{"weights", 0.25}});
  std::string text;
  ASSERT_TRUE(Generate(Request("a", 7), text).ok());
  ASSERT_TRUE(Generate(Request("a", 5), text).ok());
  ASSERT_FALSE(Generate(Request("", 5), text).ok());
  EXPECT_TRUE(Eventually([&] { return engine_metrics().pages_used.value() == 0; }));
  const std::string metrics = Text();
  for (const char* line : {
           "asymserve_requests_total{method=\"Generate\",code=\"OK\"} 2\n",
           "asymserve_requests_total{method=\"Generate\",code=\"INVALID_ARGUMENT\"} 1\n",
           "asymserve_rejections_total{reason=\"invalid\"} 1\n",
           "asymserve_rejections_total{reason=\"deadline\"} 0\n",
           "asymserve_refusal_seconds_count 1\n",
           "asymserve_rejections_total{reason=\"key_tokens\"} 0\n",
           "asymserve_reloads_total{what=\"tls\",result=\"ok\"} 0\n",
           "asymserve_reloads_total{what=\"api_keys\",result=\"error\"} 0\n",
           "asymserve_reloads_total{what=\"config\",result=\"ok\"} 0\n",
           "asymserve_reloads_total{what=\"admin_tls\",result=\"ok\"} 0\n",
           "asymserve_reloads_total{what=\"admin_api_keys\",result=\"error\"} 0\n",
           "asymserve_api_keys 0\n",
           "asymserve_refusal_seconds_bucket{le=\"+Inf\"} 1\n",
           "asymserve_tenant_sequences_total{tenant=\"default\"} 2\n",
           "asymserve_tenant_generated_tokens_total{tenant=\"default\"} 12\n",
           "asymserve_tenant_sequences_waiting{tenant=\"other\"} 0\n",
           "asymserve_prompt_tokens_total 2\n",
           "asymserve_generated_tokens_total 12\n",
           "asymserve_sequences_finished_total{reason=\"length\"} 2\n",
           "asymserve_time_to_first_token_seconds_count 2\n",
           "asymserve_inter_token_seconds_count 10\n",
           "asymserve_end_to_end_seconds_bucket{le=\"+Inf\"} 2\n",
           "asymserve_kv_pages{state=\"used\"} 0\n",
           "asymserve_startup_seconds{phase=\"weights\"} 0.25\n",
           "vllm:num_requests_waiting{model_name=\"alphabet\"} 0\n",
           "vllm:num_requests_running{model_name=\"alphabet\"} 0\n",
           "vllm:kv_cache_usage_perc{model_name=\"alphabet\"} 0\n",
           "vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"4096\"} 1\n",
       }) {
    EXPECT_THAT(metrics, HasSubstr(line));
  }
}

TEST_F(MetricsExporterTest, HistogramBucketsAreCumulative) {
  LatencyHistogram histogram;
  histogram.Observe(0.0001);
  histogram.Observe(0.005);
  histogram.Observe(0.005);
  histogram.Observe(1000);
  MetricFamilies families;
  families.Histogram("x", "help", histogram);
  const std::string text = prometheus::TextSerializer().Serialize(families.Take());
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"5e-05\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"0.0001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"0.004\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"0.006\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"120\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("x_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("x_count 4\n"));
}

}  // namespace
}  // namespace asymserve::testing
