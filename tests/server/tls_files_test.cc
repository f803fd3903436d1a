#include "server/tls_files.h"

#include <gtest/gtest.h>

#include <chrono>

#include "tests/server/test_certificates.h"
#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

using absl::StatusCode;

class TlsFilesTest : public ::testing::Test {
 protected:
  TlsFilesTest() {
    WriteFile(files_.cert_file, identity_.certificate + authority_.certificate());
    WriteFile(files_.key_file, identity_.key);
    WriteFile(files_.client_ca_file, authority_.certificate());
  }

  const TempDir directory_;
  const TestAuthority authority_{"authority"};
  const TestIdentity identity_ = authority_.Issue("server");
  TlsSection files_ = {.cert_file = directory_.Path("cert.pem"),
                       .key_file = directory_.Path("key.pem"),
                       .client_ca_file = directory_.Path("ca.pem")};
};

TEST_F(TlsFilesTest, ReadsAChainAKeyAndAuthoritiesAndTheDatesOfTheFirstCertificate) {
  const auto material = ReadTlsFiles(files_);
  ASSERT_THAT(material, IsOk());
  EXPECT_EQ(material->certificates, identity_.certificate + authority_.certificate());
  EXPECT_EQ(material->key, identity_.key);
  EXPECT_EQ(material->client_authorities, authority_.certificate());
  const int64_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  EXPECT_NEAR(static_cast<double>(material->not_before - now), -3600, 60);
  EXPECT_NEAR(static_cast<double>(material->not_after - now), 3600, 60);
}

TEST_F(TlsFilesTest, OfSeveralClientAuthoritiesTheFirstToExpireCounts) {
  const auto expiry = [this] {
    const auto material = ReadTlsFiles(files_);
    EXPECT_THAT(material, IsOk());
    const int64_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    return static_cast<double>(material->client_authorities_not_after - now);
  };
  EXPECT_NEAR(expiry(), 3600, 60);
  const TestAuthority old("old", {.end = std::chrono::seconds(-600)});
  WriteFile(files_.client_ca_file, authority_.certificate() + old.certificate());
  EXPECT_NEAR(expiry(), -600, 60);
  files_.client_ca_file.clear();
  EXPECT_EQ(ReadTlsFiles(files_)->client_authorities_not_after, 0);
}

TEST_F(TlsFilesTest, AnAuthorityOfCallersIsNoneOfOperatorsWithoutKeys) {
  Config config;
  config.server.tls = files_;
  config.admin.address = "127.0.0.1:0";
  config.admin.tls.client_ca_file = directory_.Path("operators.pem");
  const TestAuthority operators("operators");
  WriteFile(config.admin.tls.client_ca_file, operators.certificate());
  EXPECT_THAT(CheckOperatorAuthorities(config), IsOk());
  WriteFile(config.admin.tls.client_ca_file,
            operators.certificate() + "# a copy\n" + authority_.certificate());
  EXPECT_THAT(CheckOperatorAuthorities(config),
              FailsWith(StatusCode::kInvalidArgument,
                        "admin.tls.client_ca_file: " + config.admin.tls.client_ca_file +
                            " has a certificate of " + files_.client_ca_file));
  config.admin.api_keys_file = "keys.yaml";
  EXPECT_THAT(CheckOperatorAuthorities(config), IsOk());
}

TEST_F(TlsFilesTest, AFileThatIsNotThereIsNamedWithItsOption) {
  TlsSection files = files_;
  files.cert_file = directory_.Path("none.pem");
  EXPECT_THAT(ReadTlsFiles(files),
              FailsWith(StatusCode::kNotFound,
                        "server.tls.cert_file: " + files.cert_file + ": No such file"));
  files = files_;
  files.key_file = directory_.Path("none.key");
  EXPECT_THAT(ReadTlsFiles(files),
              FailsWith(StatusCode::kNotFound, "server.tls.key_file: " + files.key_file + ": "));
  files = files_;
  files.client_ca_file = directory_.path().string();
  EXPECT_THAT(ReadTlsFiles(files),
              FailsWith(StatusCode::kInvalidArgument,
                        "server.tls.client_ca_file: " + files.client_ca_file + ": not a regular"));
}

TEST_F(TlsFilesTest, WhatIsNotPemIsNamedWithItsOption) {
  for (const std::string& text : {std::string(), std::string("certificate"), identity_.key}) {
    WriteFile(files_.client_ca_file, text);
    EXPECT_THAT(ReadTlsFiles(files_),
                FailsWith(StatusCode::kInvalidArgument,
                          "server.tls.client_ca_file: " + files_.client_ca_file +
                              ": has no certificate in PEM"));
  }
  WriteFile(files_.key_file, identity_.certificate);
  EXPECT_THAT(ReadTlsFiles(files_),
              FailsWith(StatusCode::kInvalidArgument,
                        "server.tls.key_file: " + files_.key_file + ": has no private key in PEM"));
  std::string broken = identity_.certificate;
  broken[broken.size() / 2] = '!';
  WriteFile(files_.cert_file, broken);
  EXPECT_THAT(ReadTlsFiles(files_),
              FailsWith(StatusCode::kInvalidArgument, "server.tls.cert_file: " + files_.cert_file +
                                                          ": a certificate in it is not valid"));
}

TEST_F(TlsFilesTest, ABrokenCertificateBehindAGoodOneIsFound) {
  const std::string& whole = identity_.certificate;
  WriteFile(files_.cert_file, whole + whole.substr(0, whole.size() / 2));
  EXPECT_THAT(ReadTlsFiles(files_), FailsWith(StatusCode::kInvalidArgument, files_.cert_file));
}

TEST_F(TlsFilesTest, AKeyOfAnotherCertificateIsRefusedWithBothFiles) {
  WriteFile(files_.key_file, authority_.Issue("another").key);
  EXPECT_THAT(ReadTlsFiles(files_),
              FailsWith(StatusCode::kInvalidArgument,
                        "server.tls.key_file: " + files_.key_file +
                            ": does not belong to the certificate in " + files_.cert_file));
}

TEST_F(TlsFilesTest, AnErrorNamesTheSectionThatTheFileIsOf) {
  WriteFile(files_.key_file, authority_.Issue("another").key);
  EXPECT_THAT(ReadTlsFiles(files_, "admin.tls"),
              FailsWith(StatusCode::kInvalidArgument, "admin.tls.key_file: " + files_.key_file));
  files_.cert_file = directory_.Path("none.pem");
  EXPECT_THAT(ReadTlsFiles(files_, "admin.tls"),
              FailsWith(StatusCode::kNotFound, "admin.tls.cert_file: "));
}

TEST_F(TlsFilesTest, AnEncryptedKeyIsRefusedWithoutAQuestion) {
  WriteFile(files_.key_file, EncryptedKey("secret"));
  EXPECT_THAT(ReadTlsFiles(files_),
              FailsWith(StatusCode::kInvalidArgument, files_.key_file + ": is encrypted"));
}

TEST_F(TlsFilesTest, AFileLargerThanAMebibyteIsRefused) {
  WriteFile(files_.cert_file, identity_.certificate + std::string(1 << 20, '\n'));
  EXPECT_THAT(ReadTlsFiles(files_),
              FailsWith(StatusCode::kInvalidArgument, files_.cert_file + ": larger than 1048576"));
}

}  // namespace
}  // namespace asymserve::testing
