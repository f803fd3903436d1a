#pragma once

#include <memory>
#include <string>

#include "CLI/CLI.hpp"
#include "grpcpp/grpcpp.h"

namespace asymserve::client {

/// Which server is called, and as whom.
struct Connection {
  std::string address = "127.0.0.1:50051";
  double timeout_seconds = 0;               // of a call; 0: none
  std::string tenant;                       // empty: the server's default one
  std::string api_key;                      // empty: none
  std::string tls_ca_file;                  // PEM; empty: plaintext
  std::string tls_cert_file, tls_key_file;  // PEM; empty: none is shown to the server

  std::shared_ptr<grpc::Channel> Connect() const;
  void Prepare(grpc::ClientContext& context) const;
};

/// All but the timeout.
void AddConnectionOptions(CLI::App& command, Connection& connection);

}  // namespace asymserve::client
