#include "tools/client/connection.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <sstream>

namespace asymserve::client {
namespace {

/// What gRPC can send as metadata; how much of it the server takes, it says itself.
std::string CheckMetadata(const std::string& value) {
  const bool printable =
      std::all_of(value.begin(), value.end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
  return printable ? "" : "not printable ASCII";
}

std::string ReadText(const std::string& path) {
  std::ostringstream text;
  if (!path.empty()) text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// gRPC says too little about a file that it cannot use.
std::string CheckPem(const std::string& path) {
  const std::string text = ReadText(path);
  if (text.empty()) return path + ": not found, empty or not readable";
  return text.find("-----BEGIN ") == std::string::npos ? path + ": not PEM" : "";
}

}  // namespace

std::shared_ptr<grpc::Channel> Connection::Connect() const {
  if (tls_ca_file.empty()) {
    return grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadText(tls_ca_file);
  options.pem_private_key = ReadText(tls_key_file);
  options.pem_cert_chain = ReadText(tls_cert_file);
  return grpc::CreateChannel(address, grpc::SslCredentials(options));
}

void Connection::Prepare(grpc::ClientContext& context) const {
  if (!api_key.empty()) context.AddMetadata("authorization", "Bearer " + api_key);
  if (!tenant.empty()) context.AddMetadata("x-tenant-id", tenant);
  if (timeout_seconds <= 0) return;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(static_cast<int64_t>(timeout_seconds * 1e3)));
}

void AddConnectionOptions(CLI::App& command, Connection& connection) {
  command.add_option("--address", connection.address, "host:port of the server")
      ->capture_default_str();
  command.add_option("--tenant", connection.tenant, "whose share of the server this takes")
      ->check(CheckMetadata);
  command
      .add_option("--api-key", connection.api_key,
                  "who calls; other users of the machine see arguments, not the variable")
      ->envname("ASYMSERVE_API_KEY")
      ->check(CheckMetadata);
  CLI::Option* const ca =
      command.add_option("--tls-ca", connection.tls_ca_file, "TLS; trust these authorities (PEM)")
          ->check(CheckPem)
          ->type_name("FILE");
  CLI::Option* const certificate =
      command.add_option("--tls-cert", connection.tls_cert_file, "show this certificate (PEM)")
          ->check(CheckPem)
          ->type_name("FILE")
          ->needs(ca);
  CLI::Option* const key =
      command.add_option("--tls-key", connection.tls_key_file, "the certificate's private key")
          ->check(CheckPem)
          ->type_name("FILE")
          ->needs(certificate);
  certificate->needs(key);
}

}  // namespace asymserve::client
