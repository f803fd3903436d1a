#include "server/listener_credentials.h"

#include <chrono>

#include "grpc/grpc.h"

#include "engine/base/check.h"
#include "engine/base/log.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

/// Clients will refuse an expired certificate, which they have to say themselves.
void WarnOfDates(const TlsSection& files, const TlsMaterial& material) {
  const int64_t now = std::chrono::duration_cast<std::chrono::seconds>(
                          std::chrono::system_clock::now().time_since_epoch())
                          .count();
  if (now >= material.client_authorities_not_after && !material.client_authorities.empty()) {
    Log(LogLevel::kWarn, "tls_certificate",
        {{"file", files.client_ca_file},
         {"problem", "expired"},
         {"not_after", material.client_authorities_not_after}});
  }
  if (now >= material.not_before && now < material.not_after) return;
  Log(LogLevel::kWarn, "tls_certificate",
      {{"file", files.cert_file},
       {"problem", now < material.not_before ? "not valid yet" : "expired"},
       {"not_before", material.not_before},
       {"not_after", material.not_after}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<TlsIdentity>> TlsIdentity::Load(const TlsSection& files,
                                                               const std::string& section) {
  ASYMSERVE_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(files, section));
  WarnOfDates(files, material);
  return std::unique_ptr<TlsIdentity>(new TlsIdentity(files, section, std::move(material)));
}

absl::Status TlsIdentity::Reload() {
  ASYMSERVE_ASSIGN_OR_RETURN(TlsMaterial material, ReadTlsFiles(files_, section_));
  WarnOfDates(files_, material);
  const std::lock_guard lock(mutex_);
  material_ = std::move(material);
  fetched_ = false;
  return absl::OkStatus();
}

void TlsIdentity::Report(ExpiryMetrics& expiry) const {
  const std::lock_guard lock(mutex_);
  expiry.certificate_s.Set(material_.not_after);
  expiry.client_authority_s.Set(material_.client_authorities_not_after);
}

grpc_server_credentials* TlsIdentity::NewCredentials() {
  const auto request = files_.client_ca_file.empty()
                           ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                           : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  return grpc_ssl_server_credentials_create_with_options(
      grpc_ssl_server_credentials_create_options_using_config_fetcher(request, Fetch, this));
}

// For every new connection.
grpc_ssl_certificate_config_reload_status TlsIdentity::Fetch(
    void* self, grpc_ssl_server_certificate_config** to) {
  auto& identity = *static_cast<TlsIdentity*>(self);
  const std::lock_guard lock(identity.mutex_);
  if (identity.fetched_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
  const TlsMaterial& material = identity.material_;
  const grpc_ssl_pem_key_cert_pair pair = {material.key.c_str(), material.certificates.c_str()};
  // gRPC 1.51 insists on authorities, although it asks for no certificate then.
  const std::string& authorities =
      material.client_authorities.empty() ? material.certificates : material.client_authorities;
  *to = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
  identity.fetched_ = true;
  return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
}

void ListenerCredentials::SetAuthMetadataProcessor(
    const std::shared_ptr<grpc::AuthMetadataProcessor>& /*processor*/) {
  ASYMSERVE_CHECK(false);
}

int ListenerCredentials::AddPortToServer(const std::string& address, grpc_server* server) {
  return grpc_server_add_http2_port(server, address.c_str(), credentials_);
}

}  // namespace asymserve
