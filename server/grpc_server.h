#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

#include "config/config.h"
#include "server/admin_service.h"
#include "server/connection_acceptor.h"
#include "server/inference_service.h"
#include "server/listener_credentials.h"
#include "server/server_metrics.h"

namespace asymserve {

/// A listening gRPC server with one service, and reflection. That of the inference service has
/// grpc.health.v1 as well: "" is SERVING as long as the process lives (liveness),
/// "asymserve.v1.Inference" only between SetReady(true) and SetReady(false) (readiness).
class GrpcServer {
 public:
  /// Binds and starts to answer. Unavailable names the address that could not be bound,
  /// FailedPrecondition what is missing to listen beyond this machine, InvalidArgument or NotFound
  /// a TLS file. `service` and `metrics` outlive the server. One thread at a time.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerSection& options,
                                                           InferenceService& service,
                                                           ServerMetrics& metrics);
  /// The same for the admin service, whose port has no health service and small messages; of
  /// `server` reflection and the limits of connections count.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> StartAdmin(const AdminSection& options,
                                                                const ServerSection& server,
                                                                AdminService& service,
                                                                ServerMetrics& metrics);
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;
  ~GrpcServer() { acceptor_ = nullptr; }

  /// Where it listens: the configured address with the port the system gave for port 0.
  const std::string& address() const { return address_; }
  /// Of the inference service only.
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
  /// What two ports have differently.
  struct Port {
    std::string section;  // of the configuration
    std::string address;
    bool insecure = false;
    TlsSection tls = {};
    std::string api_keys_file = {};
    int64_t max_message_bytes = 0;
    int32_t max_connections = 1;
    double max_connection_age_seconds = 0;
    bool reflection = false;
    bool health = false;
    std::span<const std::string_view> unguarded = {};  // GuardMethods
    const KeyRing* keys = nullptr;                     // null: nobody needs one
  };
  static void Configure(const Port& port, grpc::ServerBuilder& builder);
  static absl::Status CheckExposure(const Port& port, const ListenSocket& socket);
  static std::shared_ptr<grpc::ServerCredentials> MakeCredentials(const Port& port,
                                                                  TlsIdentity* tls,
                                                                  ServerMetrics& metrics);
  /// What TLS says of `expiry` is set.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const Port& port, grpc::Service& service,
                                                           ExpiryMetrics& expiry,
                                                           ServerMetrics& metrics);
  GrpcServer(std::unique_ptr<TlsIdentity> tls, std::unique_ptr<grpc::Server> server,
             std::unique_ptr<Connections> connections, std::string address, ExpiryMetrics& expiry)
      : expiry_(expiry),
        tls_(std::move(tls)),
        connections_(std::move(connections)),
        server_(std::move(server)),
        address_(std::move(address)) {}
  ExpiryMetrics& expiry_;
  const std::unique_ptr<TlsIdentity> tls_;  // null: plaintext
  const std::unique_ptr<Connections> connections_;
  const std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  std::unique_ptr<ConnectionAcceptor> acceptor_;  // null once stopped
};

}  // namespace asymserve
