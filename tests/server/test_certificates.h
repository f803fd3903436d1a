#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "openssl/evp.h"
#include "openssl/x509.h"

namespace asymserve::testing {

/// A certificate and its key, both PEM.
struct TestIdentity {
  std::string certificate, key;
};

/// Valid from `begin` to `end`, relative to now.
struct Validity {
  std::chrono::seconds begin{-3600};
  std::chrono::seconds end{3600};
};

/// An authority with a key of its own (P-256). Failures abort.
class TestAuthority {
 public:
  explicit TestAuthority(const std::string& name, Validity validity = {});

  const std::string& certificate() const { return pem_; }
  /// For localhost and 127.0.0.1, and as a client.
  TestIdentity Issue(const std::string& name, Validity validity = {}) const;

 private:
  std::shared_ptr<EVP_PKEY> key_;
  std::shared_ptr<X509> certificate_;
  std::string pem_;
};

/// A private key in PEM that asks for a passphrase.
std::string EncryptedKey(const std::string& passphrase);

}  // namespace asymserve::testing
