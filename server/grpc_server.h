#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

#include "config/config.h"
#include "server/connection_acceptor.h"
#include "server/inference_service.h"
#include "server/listener_credentials.h"
#include "server/server_metrics.h"

namespace asymserve {

/// The listening gRPC server with the inference service, grpc.health.v1 and reflection. Health: ""
/// is SERVING as long as the process lives (liveness), "asymserve.v1.Inference" only between
/// SetReady(true) and SetReady(false) (readiness).
class GrpcServer {
 public:
  /// Binds and starts to answer. Unavailable names the address that could not be bound,
  /// FailedPrecondition what is missing to listen beyond this machine, InvalidArgument or NotFound
  /// a TLS file. `service` and `metrics` outlive the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerSection& options,
                                                           InferenceService& service,
                                                           ServerMetrics& metrics);
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;
  ~GrpcServer() { acceptor_ = nullptr; }

  /// Where it listens: the configured address with the port the system gave for port 0.
  const std::string& address() const { return address_; }
  void SetReady(bool ready);
  /// Reads the TLS files again, for new connections; after an error the old ones stay in use. OK
  /// without TLS.
  absl::Status ReloadTls();
  /// Accepts no more connections and ends the open ones, behind what was written to them; gives
  /// their clients `timeout` to close them. Calls that come meanwhile end UNAVAILABLE, where Stop
  /// would have gRPC end them CANCELLED. Before Stop, once the calls that count have ended.
  void HangUp(std::chrono::milliseconds timeout);
  /// Accepts no more connections and calls, waits for the open ones, and cancels those left after
  /// `timeout`.
  void Stop(std::chrono::milliseconds timeout);

 private:
  using Connections = grpc::experimental::ExternalConnectionAcceptor;
  GrpcServer(std::unique_ptr<TlsIdentity> tls, std::unique_ptr<grpc::Server> server,
             std::unique_ptr<Connections> connections, std::string address, ServerMetrics& metrics)
      : metrics_(metrics),
        tls_(std::move(tls)),
        connections_(std::move(connections)),
        server_(std::move(server)),
        address_(std::move(address)) {}
  ServerMetrics& metrics_;
  const std::unique_ptr<TlsIdentity> tls_;  // null: plaintext
  const std::unique_ptr<Connections> connections_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // null once stopped
};

}  // namespace asymserve
