#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"

#include "config/config.h"
#include "config/config_source.h"
#include "server/admin_service.h"
#include "server/grpc_server.h"
#include "server/inference_service.h"
#include "server/key_ring.h"
#include "server/live_config.h"
#include "server/metrics_endpoint.h"
#include "server/metrics_exporter.h"
#include "server/reloader.h"
#include "server/server_metrics.h"

namespace asymserve {

/// What answers the network, from before the model is loaded, and what is read again.
struct FrontEnd {
  /// `stop` is what the admin service calls for a drain. Opens nothing.
  FrontEnd(const ConfigSource& source, const Config& config, std::function<void()> stop);
  FrontEnd(const FrontEnd&) = delete;
  FrontEnd& operator=(const FrontEnd&) = delete;
  ~FrontEnd() = default;

  /// Reads keys and certificates and listens on every port. Errors name the option.
  absl::Status Start(const Config& config);
  /// Calls that are open end.
  void Stop();

  LiveConfig live;
  ServerMetrics metrics;
  Reloads reloads;
  const std::unique_ptr<KeyRing> keys, admin_keys;  // null: nobody needs one
  InferenceService service;
  AdminService admin_service;
  std::shared_ptr<MetricsExporter> exporter;
  std::unique_ptr<MetricsEndpoint> endpoint;  // null: none wanted
  std::unique_ptr<GrpcServer> server;
  std::unique_ptr<GrpcServer> admin;  // null: none wanted

 private:
  absl::Status ReadKeys();
  absl::Status ReadAdminKeys();
  void WatchFiles(const Config& config);
};

}  // namespace asymserve
