#include "server/metrics_endpoint.h"

#include <exception>

#include "absl/strings/str_cat.h"

namespace asymserve {

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const std::string& address, const std::shared_ptr<MetricsExporter>& exporter) {
  try {
    auto exposer = std::make_unique<prometheus::Exposer>(address, 1);
    exposer->RegisterCollectable(exporter);
    std::string bound = address;
    const size_t colon = address.rfind(':');
    const std::vector<int> ports = exposer->GetListeningPorts();
    if (!ports.empty() && colon != std::string::npos) {
      bound = absl::StrCat(address.substr(0, colon + 1), ports.front());
    }
    return std::unique_ptr<MetricsEndpoint>(
        new MetricsEndpoint(std::move(exposer), std::move(bound)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat("metrics.address: cannot listen on ", address, ": ", error.what()));
  }
}

}  // namespace asymserve
