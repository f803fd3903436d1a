#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/exposer.h"

#include "server/metrics_exporter.h"

namespace asymserve {

/// The HTTP endpoint /metrics in Prometheus's text format.
class MetricsEndpoint {
 public:
  /// `address` is ip:port; port 0 takes a free one. Unavailable names an address that cannot be
  /// bound.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(
      const std::string& address, const std::shared_ptr<MetricsExporter>& exporter);

  const std::string& address() const { return address_; }

 private:
  MetricsEndpoint(std::unique_ptr<prometheus::Exposer> exposer, std::string address)
      : exposer_(std::move(exposer)), address_(std::move(address)) {}
  std::unique_ptr<prometheus::Exposer> exposer_;
  const std::string address_;
};

}  // namespace asymserve
