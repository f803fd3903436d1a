#include "server/grpc_server.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"

namespace asymserve {
namespace {

constexpr char kServiceName[] = "asymserve.v1.Inference";

/// "host:0" with the port that was bound; other addresses unchanged.
std::string BoundAddress(const std::string& address, int port) {
  const size_t colon = address.rfind(':');
  if (colon == std::string::npos || address.substr(colon) != ":0") return address;
  return absl::StrCat(address.substr(0, colon + 1), port);
}

void Configure(const ServerSection& options, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min<int64_t>(options.max_message_bytes, INT32_MAX)));
  // A client may ping as often as it likes, idle too, without losing its connection.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 0);
  // Two servers on one port would share its connections and hide a mistake.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // Only reflection is a synchronous service.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerSection& options,
                                                              InferenceService& service) {
  grpc::EnableDefaultHealthCheckService(true);
  if (options.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  Configure(options, builder);
  int port = 0;
  builder.AddListeningPort(options.address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "server.address: cannot listen on ", options.address,
        ": the port is taken, or the address is not one of this machine or not host:port"));
  }
  std::unique_ptr<GrpcServer> started(
      new GrpcServer(std::move(server), BoundAddress(options.address, port)));
  started->SetReady(false);
  return started;
}

void GrpcServer::SetReady(bool ready) {
  server_->GetHealthCheckService()->SetServingStatus(kServiceName, ready);
}

void GrpcServer::Stop(std::chrono::milliseconds timeout) {
  server_->Shutdown(std::chrono::system_clock::now() + timeout);
  server_->Wait();
}

}  // namespace asymserve
