#include "server/grpc_server.h"

#include <algorithm>
#include <thread>

#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/impl/server_builder_plugin.h"

#include "engine/base/log.h"
#include "engine/base/status.h"
#include "server/authentication.h"

namespace asymserve {
namespace {

constexpr char kServiceName[] = "asymserve.v1.Inference";
// For everybody, or guarded by the service itself.
constexpr std::string_view kUnguarded[] = {"/grpc.health.v1.Health/", "/asymserve.v1.Inference/"};
constexpr std::string_view kUnguardedAdmin[] = {"/asymserve.v1.Admin/"};
constexpr char kReflectionPlugin[] = "proto_server_reflection";
constexpr int64_t kAdminMessageBytes = int64_t{64} << 10;
constexpr size_t kConnectionBytes = size_t{64} << 20;  // of all connections, and
constexpr int kLargeMessages = 16;                     // so many of max_message_bytes
constexpr std::chrono::milliseconds kPoll(2);
constexpr int kStreamsPerConnection = 1024;  // more wait in the client

/// Takes out what gRPC's reflection library puts into every builder by being linked.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments* /*arguments*/) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins, [](const std::unique_ptr<grpc::ServerBuilderPlugin>& plugin) {
      return plugin->name() == kReflectionPlugin;
    });
  }
};

}  // namespace

void GrpcServer::Configure(const Port& port, grpc::ServerBuilder& builder) {
  builder.SetMaxReceiveMessageSize(
      static_cast<int>(std::min<int64_t>(port.max_message_bytes, INT32_MAX)));
  // A message is as large as it says: a few megabytes of gzip would be inflated to gigabytes before
  // anything, a key included, is looked at. UNIMPLEMENTED names the algorithm.
  builder.AddChannelArgument(GRPC_ARG_ENABLE_PER_MESSAGE_DECOMPRESSION, 0);
  builder.AddChannelArgument(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET,
                             1 << GRPC_COMPRESS_NONE);
  // A client may ping every second, idle too. Only one that sent a thousand more often than that,
  // and got nothing else in between, loses its connection.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 1000);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 1000);
  // A peer that is gone without a word is noticed, and one that never says anything is not kept.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 60'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 20'000);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnection);
  if (port.max_connection_age_seconds > 0) {
    // The grace after it is without end unless it is set: no stream is cut off.
    const double age_ms = std::max(1.0, port.max_connection_age_seconds * 1e3);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, static_cast<int>(age_ms));
  }
  // Beyond it gRPC ends streams. It counts headers that never end in part only.
  builder.SetResourceQuota(
      grpc::ResourceQuota("connections")
          .Resize(kConnectionBytes + static_cast<size_t>(kLargeMessages) *
                                         static_cast<size_t>(port.max_message_bytes)));
  // Only reflection is a synchronous service.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
}

/// Whether strangers could read or make calls.
absl::Status GrpcServer::CheckExposure(const Port& port, const ListenSocket& socket) {
  std::string lacks = port.tls.cert_file.empty() ? "TLS" : "";
  if (port.api_keys_file.empty() && port.tls.client_ca_file.empty()) {
    absl::StrAppend(&lacks, lacks.empty() ? "" : " and without ",
                    "API keys or client certificates");
  }
  if (socket.loopback() || lacks.empty()) return absl::OkStatus();
  if (port.insecure) {
    Log(LogLevel::kWarn, "insecure",
        {{"address", socket.address()}, {"without", lacks}, {"section", port.section}});
    return absl::OkStatus();
  }
  const std::string& section = port.section;
  return absl::FailedPreconditionError(absl::StrCat(
      section, ".address: other machines reach ", socket.address(), ", without ", lacks, "; set ",
      section, ".tls.cert_file and key_file, and ", section, ".api_keys_file or ", section,
      ".tls.client_ca_file; or listen on 127.0.0.1; or set ", section,
      ".insecure: true if the network keeps strangers out"));
}

std::shared_ptr<grpc::ServerCredentials> GrpcServer::MakeCredentials(const Port& port,
                                                                     TlsIdentity* tls,
                                                                     ServerMetrics& metrics) {
  grpc_server_credentials* const credentials =
      tls != nullptr ? tls->NewCredentials() : grpc_insecure_server_credentials_create();
  if (port.keys != nullptr) GuardMethods(*credentials, *port.keys, port.unguarded, metrics);
  return std::make_shared<ListenerCredentials>(credentials);
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const ServerSection& options,
                                                              InferenceService& service,
                                                              ServerMetrics& metrics) {
  const Port port = {.section = "server",
                     .address = options.address,
                     .insecure = options.insecure,
                     .tls = options.tls,
                     .api_keys_file = options.api_keys_file,
                     .max_message_bytes = options.max_message_bytes,
                     .max_connections = options.max_connections,
                     .max_connection_age_seconds = options.max_connection_age_seconds,
                     .reflection = options.reflection,
                     .health = true,
                     .unguarded = kUnguarded,
                     .keys = service.keys()};
  return Start(port, service, metrics.expiry, metrics);
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::StartAdmin(const AdminSection& options,
                                                                   const ServerSection& server,
                                                                   AdminService& service,
                                                                   ServerMetrics& metrics) {
  const Port port = {.section = "admin",
                     .address = options.address,
                     .insecure = options.insecure,
                     .tls = options.tls,
                     .api_keys_file = options.api_keys_file,
                     .max_message_bytes = kAdminMessageBytes,
                     .max_connections = server.max_connections,
                     .max_connection_age_seconds = server.max_connection_age_seconds,
                     .reflection = server.reflection,
                     .health = false,
                     .unguarded = kUnguardedAdmin,
                     .keys = service.keys()};
  return Start(port, service, metrics.admin_expiry, metrics);
}

absl::StatusOr<std::unique_ptr<GrpcServer>> GrpcServer::Start(const Port& port,
                                                              grpc::Service& service,
                                                              ExpiryMetrics& expiry,
                                                              ServerMetrics& metrics) {
  std::unique_ptr<TlsIdentity> tls;
  if (!port.tls.cert_file.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(tls, TlsIdentity::Load(port.tls, port.section + ".tls"));
    tls->Report(expiry);
  }
  absl::StatusOr<ListenSocket> socket = ListenSocket::Bind(port.address);
  if (!socket.ok()) return Annotate(socket.status(), port.section + ".address");
  ASYMSERVE_RETURN_IF_ERROR(CheckExposure(port, *socket));
  grpc::EnableDefaultHealthCheckService(port.health);  // of servers that start from now on
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  if (!port.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  Configure(port, builder);
  using FromFd = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
  std::unique_ptr<Connections> connections = builder.experimental().AddExternalConnectionAcceptor(
      FromFd::FROM_FD, MakeCredentials(port, tls.get(), metrics));
  builder.RegisterService(&service);
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) return absl::UnavailableError(port.section + ": gRPC does not start");
  std::unique_ptr<GrpcServer> started(new GrpcServer(
      std::move(tls), std::move(server), std::move(connections), socket->address(), expiry));
  if (port.health) started->SetReady(false);
  const auto hand_over = [connections = started->connections_.get()](int listener, int connection) {
    Connections::NewConnectionParameters parameters;
    parameters.listener_fd = listener;
    parameters.fd = connection;
    connections->HandleNewConnection(&parameters);
  };
  ASYMSERVE_ASSIGN_OR_RETURN(started->acceptor_,
                             ConnectionAcceptor::Start(*std::move(socket), port.max_connections,
                                                       hand_over, metrics.refused_connections));
  return started;
}

void GrpcServer::SetReady(bool ready) {
  server_->GetHealthCheckService()->SetServingStatus(kServiceName, ready);
}

absl::Status GrpcServer::ReloadTls() {
  if (tls_ == nullptr) return absl::OkStatus();
  ASYMSERVE_RETURN_IF_ERROR(tls_->Reload());
  tls_->Report(expiry_);
  return absl::OkStatus();
}

void GrpcServer::HangUp(std::chrono::milliseconds timeout) {
  if (acceptor_ == nullptr) return;
  acceptor_->HangUp();
  const auto end = std::chrono::steady_clock::now() + timeout;
  while (acceptor_->open_connections() > 0 && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(kPoll);
  }
}

void GrpcServer::Stop(std::chrono::milliseconds timeout) {
  acceptor_ = nullptr;
  server_->Shutdown(std::chrono::system_clock::now() + timeout);
  server_->Wait();
}

}  // namespace asymserve
