#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "grpcpp/grpcpp.h"

#include "config/config.h"
#include "server/inference_service.h"

namespace asymserve {

/// The listening gRPC server with the inference service, grpc.health.v1 and reflection. Health: ""
/// is SERVING as long as the process lives (liveness), "asymserve.v1.Inference" only between
/// SetReady(true) and SetReady(false) (readiness).
class GrpcServer {
 public:
  /// Binds and starts to answer. Unavailable names the address that could not be bound. `service`
  /// outlives the server.
  static absl::StatusOr<std::unique_ptr<GrpcServer>> Start(const ServerSection& options,
                                                           InferenceService& service);

  /// Where it listens: the configured address with the port the system gave for port 0.
  const std::string& address() const { return address_; }
  void SetReady(bool ready);
  /// Accepts no more calls, waits for the open ones, and cancels those left after `timeout`.
  void Stop(std::chrono::milliseconds timeout);

 private:
  GrpcServer(std::unique_ptr<grpc::Server> server, std::string address)
      : server_(std::move(server)), address_(std::move(address)) {}
  std::unique_ptr<grpc::Server> server_;
  const std::string address_;
};

}  // namespace asymserve
