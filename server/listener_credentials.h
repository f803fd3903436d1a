#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "grpc/grpc_security.h"
#include "grpcpp/security/server_credentials.h"

#include "server/server_metrics.h"
#include "server/tls_files.h"

namespace asymserve {

/// The TLS files of a listener, which new connections are made with. Any thread.
class TlsIdentity {
 public:
  /// Errors of ReadTlsFiles.
  static absl::StatusOr<std::unique_ptr<TlsIdentity>> Load(const TlsSection& files,
                                                           const std::string& section);
  TlsIdentity(const TlsIdentity&) = delete;
  TlsIdentity& operator=(const TlsIdentity&) = delete;
  ~TlsIdentity() = default;

  /// Reads the files again. An error leaves everything as it was.
  absl::Status Reload();
  /// When they expire.
  void Report(ExpiryMetrics& expiry) const;
  /// For one listener, which may not outlive this.
  grpc_server_credentials* NewCredentials();

 private:
  TlsIdentity(TlsSection files, std::string section, TlsMaterial material)
      : files_(std::move(files)), section_(std::move(section)), material_(std::move(material)) {}
  static grpc_ssl_certificate_config_reload_status Fetch(void* self,
                                                         grpc_ssl_server_certificate_config** to);

  const TlsSection files_;
  const std::string section_;  // of the configuration
  mutable std::mutex mutex_;
  TlsMaterial material_;  // guarded by mutex_
  bool fetched_ = false;  // guarded by mutex_; gRPC has this material
};

/// Credentials of gRPC's C interface in its C++ one, which in 1.51 has no way to TLS whose files
/// change: its FileWatcherCertificateProvider takes up a broken pair, too.
class ListenerCredentials final : public grpc::ServerCredentials {
 public:
  /// Takes over a reference.
  explicit ListenerCredentials(grpc_server_credentials* credentials) : credentials_(credentials) {}
  ListenerCredentials(const ListenerCredentials&) = delete;
  ListenerCredentials& operator=(const ListenerCredentials&) = delete;
  ~ListenerCredentials() override { grpc_server_credentials_release(credentials_); }

  /// Not supported.
  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& processor) override;

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override;
  grpc_server_credentials* const credentials_;
};

}  // namespace asymserve
