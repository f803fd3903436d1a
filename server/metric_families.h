#pragma once

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
  void Sample(const Labels& labels, const LatencyHistogram& histogram);

  void Counter(const std::string& name, const std::string& help, double value,
               const Labels& labels = {});
  void Gauge(const std::string& name, const std::string& help, double value,
             const Labels& labels = {});
  void Histogram(const std::string& name, const std::string& help,
                 const LatencyHistogram& histogram);

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  prometheus::ClientMetric& Add(const Labels& labels);
  std::vector<prometheus::MetricFamily> families_;
};

}  // namespace asymserve
