#include "server/tls_files.h"

#include <algorithm>
#include <ctime>
#include <memory>
#include <optional>
#include <vector>

#include "openssl/err.h"
#include "openssl/pem.h"
#include "openssl/ssl.h"

#include "config/read_file.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr size_t kMaxPemBytes = size_t{1} << 20;

template <auto free>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using Bio = std::unique_ptr<BIO, Free<BIO_free>>;
using Certificate = std::unique_ptr<X509, Free<X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;
using SslContext = std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>>;

absl::Status Invalid(const std::string& file, std::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::string(problem)));
}

/// "problem (what OpenSSL says)"; forgets what OpenSSL says.
absl::Status Refused(const std::string& file, std::string_view problem) {
  const char* const reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return Invalid(file, absl::StrCat(std::string(problem), " (",
                                    reason != nullptr ? reason : "no reason given", ")"));
}

absl::StatusOr<std::string> ReadPem(const std::string& file) {
  ASYMSERVE_ASSIGN_OR_RETURN(std::string text, ReadRegularFile(file, kMaxPemBytes));
  if (text.size() > kMaxPemBytes) {
    return Invalid(file, absl::StrCat("larger than ", kMaxPemBytes, " bytes"));
  }
  return text;
}

Bio Open(const std::string& text) {
  return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

/// All certificates of a text, at least one.
absl::StatusOr<std::vector<Certificate>> ReadCertificates(const std::string& file,
                                                          const std::string& text) {
  ERR_clear_error();
  const Bio bio = Open(text);
  std::vector<Certificate> all;
  while (true) {
    Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
    if (certificate == nullptr) break;
    all.push_back(std::move(certificate));
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE) {
    return Refused(file, "a certificate in it is not valid PEM");
  }
  ERR_clear_error();
  if (all.empty()) return Invalid(file, "has no certificate in PEM");
  return all;
}

/// In place of a question on the terminal.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* asked) {
  *static_cast<bool*>(asked) = true;
  return -1;
}

absl::StatusOr<PrivateKey> ReadKey(const std::string& file, const std::string& text) {
  ERR_clear_error();
  const Bio bio = Open(text);
  bool asked = false;
  PrivateKey key(PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, &asked));
  if (key != nullptr) return key;
  if (asked) {
    ERR_clear_error();
    return Invalid(file, "is encrypted; the server needs a key without a passphrase");
  }
  return Refused(file, "has no private key in PEM");
}

int64_t Seconds(const ASN1_TIME* time) {
  std::tm parts{};
  return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

/// What OpenSSL will use must please it: the strength of keys, too.
absl::Status CheckPair(const TlsSection& files, const std::string& section, X509* certificate,
                       EVP_PKEY* key) {
  const SslContext context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return absl::InternalError("OpenSSL does not start");
  if (SSL_CTX_use_certificate(context.get(), certificate) != 1) {
    return Annotate(Refused(files.cert_file, "cannot be used"), section + ".cert_file");
  }
  if (X509_check_private_key(certificate, key) != 1) {
    ERR_clear_error();
    return Annotate(Invalid(files.key_file, absl::StrCat("does not belong to the certificate in ",
                                                         files.cert_file)),
                    section + ".key_file");
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1) {
    return Annotate(Refused(files.key_file, "cannot be used"), section + ".key_file");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TlsMaterial> ReadTlsFiles(const TlsSection& files, const std::string& section) {
  TlsMaterial material;
  const auto certificates = [](const std::string& file,
                               std::string& text) -> absl::StatusOr<std::vector<Certificate>> {
    ASYMSERVE_ASSIGN_OR_RETURN(text, ReadPem(file));
    return ReadCertificates(file, text);
  };
  const absl::StatusOr<std::vector<Certificate>> own_chain =
      certificates(files.cert_file, material.certificates);
  if (!own_chain.ok()) return Annotate(own_chain.status(), section + ".cert_file");
  X509* const own = own_chain->front().get();
  absl::StatusOr<std::string> key_text = ReadPem(files.key_file);
  if (!key_text.ok()) return Annotate(key_text.status(), section + ".key_file");
  material.key = *std::move(key_text);
  const absl::StatusOr<PrivateKey> key = ReadKey(files.key_file, material.key);
  if (!key.ok()) return Annotate(key.status(), section + ".key_file");
  ASYMSERVE_RETURN_IF_ERROR(CheckPair(files, section, own, key->get()));
  material.not_before = Seconds(X509_get0_notBefore(own));
  material.not_after = Seconds(X509_get0_notAfter(own));
  if (!files.client_ca_file.empty()) {
    const absl::StatusOr<std::vector<Certificate>> authorities =
        certificates(files.client_ca_file, material.client_authorities);
    if (!authorities.ok()) return Annotate(authorities.status(), section + ".client_ca_file");
    int64_t first = INT64_MAX;
    for (const Certificate& authority : *authorities) {
      first = std::min(first, Seconds(X509_get0_notAfter(authority.get())));
    }
    material.client_authorities_not_after = first;
  }
  return material;
}

absl::Status CheckOperatorAuthorities(const Config& config) {
  const std::string& callers = config.server.tls.client_ca_file;
  const std::string& operators = config.admin.tls.client_ca_file;
  const bool by_certificate = !config.admin.address.empty() && config.admin.api_keys_file.empty();
  if (!by_certificate || callers.empty() || operators.empty()) return absl::OkStatus();
  const auto read = [](const std::string& file) -> absl::StatusOr<std::vector<Certificate>> {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::string text, ReadPem(file));
    return ReadCertificates(file, text);
  };
  const absl::StatusOr<std::vector<Certificate>> of_callers = read(callers);
  if (!of_callers.ok()) return Annotate(of_callers.status(), "server.tls.client_ca_file");
  const absl::StatusOr<std::vector<Certificate>> of_operators = read(operators);
  if (!of_operators.ok()) return Annotate(of_operators.status(), "admin.tls.client_ca_file");
  for (const Certificate& one : *of_callers) {
    for (const Certificate& other : *of_operators) {
      if (X509_cmp(one.get(), other.get()) != 0) continue;
      return absl::InvalidArgumentError(absl::StrCat(
          "admin.tls.client_ca_file: ", operators, " has a certificate of ", callers,
          " (server.tls.client_ca_file), without admin.api_keys_file: every caller's certificate "
          "would be good"));
    }
  }
  return absl::OkStatus();
}

}  // namespace asymserve
