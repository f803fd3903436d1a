#include "server/metric_families.h"

#include <limits>

namespace asymserve {

void MetricFamilies::Open(const std::string& name, const std::string& help,
                          prometheus::MetricType type) {
  prometheus::MetricFamily family;
  family.name = name;
  family.help = help;
  family.type = type;
  families_.push_back(std::move(family));
}

prometheus::ClientMetric& MetricFamilies::Add(const Labels& labels) {
  prometheus::ClientMetric& metric = families_.back().metric.emplace_back();
  for (const auto& [name, value] : labels) {
    prometheus::ClientMetric::Label label;
    label.name = name;
    label.value = value;
    metric.label.push_back(std::move(label));
  }
  return metric;
}

void MetricFamilies::Sample(const Labels& labels, double value) {
  prometheus::ClientMetric& metric = Add(labels);
  if (families_.back().type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

void MetricFamilies::SampleBuckets(const Labels& labels, std::span<const double> bounds,
                                   std::span<const uint64_t> counts, double sum) {
  prometheus::ClientMetric& metric = Add(labels);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    cumulative += counts[i];
    prometheus::ClientMetric::Bucket bucket;
    bucket.cumulative_count = cumulative;
    bucket.upper_bound = i < bounds.size() ? bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back(bucket);
  }
  metric.histogram.sample_count = cumulative;
  metric.histogram.sample_sum = sum;
}

void MetricFamilies::Counter(const std::string& name, const std::string& help, double value,
                             const Labels& labels) {
  Open(name, help, prometheus::MetricType::Counter);
  Sample(labels, value);
}

void MetricFamilies::Gauge(const std::string& name, const std::string& help, double value,
                           const Labels& labels) {
  Open(name, help, prometheus::MetricType::Gauge);
  Sample(labels, value);
}

void MetricFamilies::Histogram(const std::string& name, const std::string& help,
                               const LatencyHistogram& histogram) {
  Open(name, help, prometheus::MetricType::Histogram);
  Sample({}, histogram);
}

}  // namespace asymserve
