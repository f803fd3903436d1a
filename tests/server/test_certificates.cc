#include "tests/server/test_certificates.h"

#include <atomic>

#include "openssl/bio.h"
#include "openssl/ec.h"
#include "openssl/pem.h"
#include "openssl/x509v3.h"

#include "engine/base/check.h"

namespace asymserve::testing {
namespace {

std::shared_ptr<EVP_PKEY> NewKey() {
  EVP_PKEY* const key = EVP_EC_gen("P-256");
  ASYMSERVE_CHECK(key != nullptr);
  return {key, EVP_PKEY_free};
}

template <typename Write>
std::string ToPem(const Write& write) {
  BIO* const bio = BIO_new(BIO_s_mem());
  ASYMSERVE_CHECK(write(bio) == 1);
  char* data = nullptr;
  const auto size = static_cast<size_t>(BIO_get_mem_data(bio, &data));
  std::string pem(data, size);
  BIO_free(bio);
  return pem;
}

void SetName(X509_NAME* to, const std::string& name) {
  ASYMSERVE_CHECK(X509_NAME_add_entry_by_txt(to, "CN", MBSTRING_ASC,
                                             reinterpret_cast<const unsigned char*>(name.c_str()),
                                             -1, -1, 0) == 1);
}

void AddExtension(X509* certificate, int kind, const char* value) {
  X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, kind, value);
  ASYMSERVE_CHECK(extension != nullptr);
  ASYMSERVE_CHECK(X509_add_ext(certificate, extension, -1) == 1);
  X509_EXTENSION_free(extension);
}

/// Without issuer and signature.
std::shared_ptr<X509> NewCertificate(const std::string& name, EVP_PKEY* key, Validity validity) {
  static std::atomic<int64_t> serial{1};
  std::shared_ptr<X509> certificate(X509_new(), X509_free);
  X509* const x509 = certificate.get();
  ASYMSERVE_CHECK(X509_set_version(x509, X509_VERSION_3) == 1);
  ASN1_INTEGER_set_int64(X509_get_serialNumber(x509), serial++);
  X509_gmtime_adj(X509_getm_notBefore(x509), validity.begin.count());
  X509_gmtime_adj(X509_getm_notAfter(x509), validity.end.count());
  SetName(X509_get_subject_name(x509), name);
  ASYMSERVE_CHECK(X509_set_pubkey(x509, key) == 1);
  return certificate;
}

std::string CertificatePem(X509* certificate) {
  return ToPem([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate); });
}

}  // namespace

TestAuthority::TestAuthority(const std::string& name, Validity validity) : key_(NewKey()) {
  certificate_ = NewCertificate(name, key_.get(), validity);
  X509* const x509 = certificate_.get();
  X509_set_issuer_name(x509, X509_get_subject_name(x509));
  AddExtension(x509, NID_basic_constraints, "critical,CA:TRUE");
  AddExtension(x509, NID_key_usage, "critical,keyCertSign");
  ASYMSERVE_CHECK(X509_sign(x509, key_.get(), EVP_sha256()) > 0);
  pem_ = CertificatePem(x509);
}

TestIdentity TestAuthority::Issue(const std::string& name, Validity validity) const {
  const std::shared_ptr<EVP_PKEY> key = NewKey();
  const std::shared_ptr<X509> certificate = NewCertificate(name, key.get(), validity);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate_.get()));
  AddExtension(certificate.get(), NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1");
  ASYMSERVE_CHECK(X509_sign(certificate.get(), key_.get(), EVP_sha256()) > 0);
  TestIdentity identity;
  identity.certificate = CertificatePem(certificate.get());
  identity.key = ToPem([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  return identity;
}

std::string EncryptedKey(const std::string& passphrase) {
  const std::shared_ptr<EVP_PKEY> key = NewKey();
  return ToPem([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key.get(), EVP_aes_256_cbc(),
                                    reinterpret_cast<const unsigned char*>(passphrase.data()),
                                    static_cast<int>(passphrase.size()), nullptr, nullptr);
  });
}

}  // namespace asymserve::testing
