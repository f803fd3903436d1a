#pragma once

#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

#include "server/served_model.h"
#include "server/server_metrics.h"

namespace asymserve {

/// Start-up phases and their seconds, in order.
using PhaseSeconds = std::vector<std::pair<std::string, double>>;

/// Turns the engine's and the server's counters into Prometheus families at every scrape. Names:
/// asymserve_*, the vllm:* ones that the Gateway API inference extension and llm-d read, and
/// OpenTelemetry's gen_ai_server_*.
class MetricsExporter final : public prometheus::Collectable {
 public:
  /// `metrics` outlives the exporter.
  explicit MetricsExporter(const ServerMetrics& metrics);

  /// From now on the engine's families are exported too, until StopServing. `model` lives as long.
  void StartServing(const ServedModel& model, PhaseSeconds phases);
  void StopServing();

  /// Any thread.
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const ServerMetrics& metrics_;
  const double started_;  // Unix time
  mutable std::mutex mutex_;
  const ServedModel* model_ = nullptr;  // guarded by mutex_
  PhaseSeconds phases_;                 // guarded by mutex_
};

}  // namespace asymserve
