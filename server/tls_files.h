#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "config/config.h"

namespace asymserve {

/// What a listener proves itself with, as PEM text that was checked.
struct TlsMaterial {
  std::string certificates;  // the server's, then its chain
  std::string key;
  std::string client_authorities;  // empty: clients need no certificate
  int64_t not_before = 0;          // of the server's certificate, seconds since 1970
  int64_t not_after = 0;
  int64_t client_authorities_not_after = 0;  // of the first to expire; 0: there are none
};

/// Reads and checks the files. An error names the option, which is in `section`, and the file:
/// "server.tls.key_file: a/key.pem: does not belong to the certificate in a/cert.pem". Dates are
/// not checked.
absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsSection& files,
                                         const std::string& section = "server.tls");

/// InvalidArgument when a client authority of the inference service is one of operators, too, who
/// need no key: every caller could be taken for one.
absl::Status CheckOperatorAuthorities(const Config& config);

}  // namespace asymserve
