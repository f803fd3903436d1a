#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "prometheus/metric_family.h"

#include "engine/base/metrics.h"

namespace asymserve {

using Labels = std::vector<std::pair<std::string, std::string>>;

/// Collects families of samples in the types of prometheus-cpp.
class MetricFamilies {
 public:
  /// Opens a family; the samples that follow belong to it.
  void Open(const std::string& name, const std::string& help, prometheus::MetricType type);
  void Sample(const Labels& labels, double value);
  template <const auto& kBounds>
  void Sample(const Labels& labels, const asymserve::Histogram<kBounds>& histogram) {
    std::array<uint64_t, kBounds.size() + 1> buckets = {};
    for (size_t i = 0; i < buckets.size(); ++i) buckets[i] = histogram.bucket(i);
    SampleBuckets(labels, kBounds, buckets, histogram.sum());
  }

  void Counter(const std::string& name, const std::string& help, double value,
               const Labels& labels = {});
  void Gauge(const std::string& name, const std::string& help, double value,
             const Labels& labels = {});
  void Histogram(const std::string& name, const std::string& help,
                 const LatencyHistogram& histogram);

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& Add(const Labels& labels);
  /// `counts`: of each bucket alone, one more than `bounds`.
  void SampleBuckets(const Labels& labels, std::span<const double> bounds,
                     std::span<const uint64_t> counts, double sum);
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace asymserve
