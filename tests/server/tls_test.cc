#include <gmock/gmock.h>
#include <signal.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <future>

#include "openssl/ssl.h"

#include "tests/server/api_key_file.h"
#include "tests/server/process_fixture.h"
#include "tests/server/test_certificates.h"
#include "tests/support/file_io.h"

// The real server with certificates made here.

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

/// Whether somebody who speaks this version only, and trusts everybody, gets through the handshake.
bool Handshake(const std::string& address, int version) {
  SSL_CTX* const context = SSL_CTX_new(TLS_client_method());
  SSL_CTX_set_security_level(context, 0);  // lets this side speak old versions
  SSL_CTX_set_min_proto_version(context, version);
  SSL_CTX_set_max_proto_version(context, version);
  BIO* const connection = BIO_new_ssl_connect(context);
  BIO_set_conn_hostname(connection, address.c_str());
  SSL* ssl = nullptr;
  BIO_get_ssl(connection, &ssl);
  const unsigned char protocol[] = {2, 'h', '2'};
  SSL_set_alpn_protos(ssl, protocol, sizeof(protocol));
  const bool done = BIO_do_connect(connection) == 1 && BIO_do_handshake(connection) == 1;
  BIO_free_all(connection);
  SSL_CTX_free(context);
  return done;
}

class TlsTest : public ProcessFixture {
 protected:
  void Put(const std::string& name, const std::string& text) const {
    ReplaceFile(directory_.Path(name), text);
  }
  void PutServer(const TestIdentity& identity) const {
    Put("cert.pem", identity.certificate);
    Put("key.pem", identity.key);
  }

  std::vector<std::string> TlsOptions(std::vector<std::string> more = {}) const {
    more.push_back("server.tls.cert_file=" + directory_.Path("cert.pem"));
    more.push_back("server.tls.key_file=" + directory_.Path("key.pem"));
    return more;
  }
  std::vector<std::string> MutualOptions(const std::string& client_authorities) const {
    Put("clients.pem", client_authorities);
    return TlsOptions({"server.tls.client_ca_file=" + directory_.Path("clients.pem")});
  }

  /// A new connection that trusts `authorities`.
  std::unique_ptr<v1::Inference::Stub> Connect(const std::string& authorities,
                                               const TestIdentity& identity = {}) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authorities;
    options.pem_cert_chain = identity.certificate;
    options.pem_private_key = identity.key;
    return v1::Inference::NewStub(server_->Channel(grpc::SslCredentials(options)));
  }

  static grpc::Status Call(v1::Inference::Stub& stub) {
    grpc::ClientContext context;
    v1::GetModelInfoResponse info;
    return stub.GetModelInfo(&context, {}, &info);
  }
  StatusCode CodeFor(const std::string& authorities, const TestIdentity& identity = {}) {
    return Call(*Connect(authorities, identity)).error_code();
  }

  const TestAuthority authority_{"authority"};
  const TestAuthority stranger_{"stranger"};
};

TEST_F(TlsTest, OnlyClientsThatSpeakTlsAndTrustTheAuthorityGetThrough) {
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::OK);
  EXPECT_EQ(CodeFor(stranger_.certificate()), StatusCode::UNAVAILABLE);
  EXPECT_EQ(Call(*stub_).error_code(), StatusCode::UNAVAILABLE);  // plaintext
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::OK);
  EXPECT_GT(server_->Metrics()["asymserve_tls_certificate_not_after_seconds"], 1e9);
  // Of two handshakes that failed one is in the log, as a line of it.
  EXPECT_TRUE(server_->WaitForLog(" warn grpc message=\"Handshake failed"));
  EXPECT_THAT(server_->log(), ::testing::Not(HasSubstr("ssl_transport_security")));
}

TEST_F(TlsTest, NothingOlderThanTls12IsSpoken) {
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  EXPECT_FALSE(Handshake(server_->address(), TLS1_VERSION));
  EXPECT_FALSE(Handshake(server_->address(), TLS1_1_VERSION));
  EXPECT_TRUE(Handshake(server_->address(), TLS1_2_VERSION));
  EXPECT_TRUE(Handshake(server_->address(), TLS1_3_VERSION));
}

TEST_F(TlsTest, APlaintextServerIsOfNoUseToATlsClient) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Call(*stub_).ok());
}

TEST_F(TlsTest, WithClientAuthoritiesOnlyTheirValidCertificatesGetThrough) {
  const TestAuthority clients("clients");
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(MutualOptions(clients.certificate())));
  const std::string& trust = authority_.certificate();
  using std::chrono::seconds;
  EXPECT_EQ(CodeFor(trust, clients.Issue("a")), StatusCode::OK);
  EXPECT_EQ(CodeFor(trust), StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeFor(trust, stranger_.Issue("a")), StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeFor(trust, authority_.Issue("a")), StatusCode::UNAVAILABLE);
  const TestIdentity expired = clients.Issue("a", {seconds(-7200), seconds(-3600)});
  EXPECT_EQ(CodeFor(trust, expired), StatusCode::UNAVAILABLE);
  const TestIdentity early = clients.Issue("a", {seconds(3600), seconds(7200)});
  EXPECT_EQ(CodeFor(trust, early), StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeFor(trust, clients.Issue("b")), StatusCode::OK);
}

TEST_F(TlsTest, AnExpiredServerCertificateIsLoggedAndClientsRefuseIt) {
  PutServer(authority_.Issue("server", {std::chrono::seconds(-7200), std::chrono::seconds(-60)}));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  EXPECT_THAT(server_->log(), HasSubstr(" tls_certificate file=" + directory_.Path("cert.pem") +
                                        " problem=expired"));
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::UNAVAILABLE);
}

TEST_F(TlsTest, ARotationUnderAnOpenStreamIsForNewConnectionsAndTheStreamGoesOn) {
  UseSlowModel();
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions({"server.stream_queue_messages=1000000"})));
  const auto old = Connect(authority_.certificate());
  grpc::ClientContext context;
  const auto reader = old->Generate(&context, Request("stream", 4000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));

  PutServer(stranger_.Issue("server"));
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=tls"));
  EXPECT_EQ(CodeFor(stranger_.certificate()), StatusCode::OK);
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(Call(*old).ok()) << "the old connection was dropped";
  EXPECT_EQ(server_->Metrics()["asymserve_sequences_running"], 1) << "the stream ended too early";

  bool final = false;
  while (reader->Read(&message)) final = final || message.has_final();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(final);
}

TEST_F(TlsTest, RotationsUnderLoadFailNoCallOfAClientThatTrustsBothAuthorities) {
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  std::atomic<bool> stop{false};
  std::atomic<int> calls{0};
  const auto load = [&] {
    std::string errors;
    while (!stop) {
      const grpc::Status status =
          Call(*Connect(authority_.certificate() + stranger_.certificate()));
      if (!status.ok()) errors += status.error_message() + "\n";
      ++calls;
    }
    return errors;
  };
  std::vector<std::future<std::string>> clients;
  for (int i = 0; i < 3; ++i) clients.push_back(std::async(std::launch::async, load));
  const std::string ok = "asymserve_reloads_total{what=\"tls\",result=\"ok\"}";
  for (int i = 1; i <= 3; ++i) {
    const int before = calls;
    PutServer((i % 2 == 1 ? stranger_ : authority_).Issue("server"));
    EXPECT_TRUE(Eventually([&] { return server_->Metrics()[ok] >= i; }));
    EXPECT_TRUE(Eventually([&] { return calls > before + 6; }));
  }
  stop = true;
  for (std::future<std::string>& client : clients) EXPECT_EQ(client.get(), "");
}

TEST_F(TlsTest, ANewListOfClientAuthoritiesLocksOutThoseThatLeftIt) {
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(MutualOptions(authority_.certificate())));
  const std::string& trust = authority_.certificate();
  const TestIdentity old_client = authority_.Issue("a"), new_client = stranger_.Issue("a");
  EXPECT_EQ(CodeFor(trust, old_client), StatusCode::OK);
  EXPECT_EQ(CodeFor(trust, new_client), StatusCode::UNAVAILABLE);
  Put("clients.pem", stranger_.certificate());
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=tls"));
  EXPECT_EQ(CodeFor(trust, old_client), StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeFor(trust, new_client), StatusCode::OK);
}

TEST_F(TlsTest, ClientsOfAnExpiredAuthorityAreRefusedAndTheMetricsTellBefore) {
  const std::string metric = "asymserve_tls_client_authority_not_after_seconds";
  const auto from_now = [&] {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    return server_->Metrics()[metric] - std::chrono::duration<double>(now).count();
  };
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  EXPECT_FALSE(server_->Metrics().contains(metric)) << "clients need no certificate";
  ASSERT_NO_FATAL_FAILURE(Start(MutualOptions(authority_.certificate())));
  EXPECT_NEAR(from_now(), 3600, 120);
  const TestAuthority old("old", {.end = std::chrono::seconds(-600)});
  const TestIdentity client = old.Issue("a");
  Put("clients.pem", authority_.certificate() + old.certificate());
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=tls"));
  EXPECT_NEAR(from_now(), -600, 120);
  EXPECT_THAT(server_->log(), HasSubstr(" tls_certificate file=" + directory_.Path("clients.pem") +
                                        " problem=expired"));
  EXPECT_EQ(CodeFor(authority_.certificate(), client), StatusCode::UNAVAILABLE);
  EXPECT_EQ(CodeFor(authority_.certificate(), authority_.Issue("b")), StatusCode::OK);
}

TEST_F(TlsTest, FilesThatCannotBeUsedKeepTheOldOnesUntilTheyAreMended) {
  const std::string ok = "asymserve_reloads_total{what=\"tls\",result=\"ok\"}";
  const std::string error = "asymserve_reloads_total{what=\"tls\",result=\"error\"}";
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  const TestIdentity next = stranger_.Issue("server");
  Put("key.pem", next.key);
  ASSERT_TRUE(server_->WaitForLog("does not belong to the certificate"));
  EXPECT_THAT(server_->log(), HasSubstr(" reload_failed what=tls"));
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::OK);
  std::filesystem::remove(directory_.Path("key.pem"));
  ASSERT_TRUE(server_->WaitForLog("key.pem: No such file"));
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::OK);
  EXPECT_EQ(server_->Metrics()[error], 2);
  EXPECT_EQ(server_->Metrics()[ok], 0);
  PutServer(next);
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=tls"));
  EXPECT_EQ(CodeFor(stranger_.certificate()), StatusCode::OK);
  EXPECT_EQ(server_->Metrics()[ok], 1);
}

TEST_F(TlsTest, SighupReadsTheFilesAtOnceAndDoesNotEndTheServer) {
  PutServer(authority_.Issue("server"));
  ASSERT_NO_FATAL_FAILURE(Start(TlsOptions()));
  server_->Signal(SIGHUP);
  EXPECT_TRUE(server_->WaitForLog(" reloaded what=tls"));
  EXPECT_EQ(CodeFor(authority_.certificate()), StatusCode::OK);
}

TEST_F(TlsTest, BeyondThisMachineTheServerNeedsTlsAndToKnowItsCallersOrToBeToldOtherwise) {
  const auto refusal = [this](std::vector<std::string> options) {
    std::vector<std::string> arguments = {"--model", model_path_};
    options.emplace_back("server.address=0.0.0.0:0");
    for (const std::string& option : options) {
      arguments.emplace_back("--set");
      arguments.push_back(option);
    }
    ServerProcess server(arguments);
    EXPECT_EQ(server.WaitForExit(), 1);
    EXPECT_TRUE(server.WaitForLog(" failed "));
    return server.log();
  };
  PutServer(authority_.Issue("server"));
  Put("keys.yaml", KeyEntry("alice", "secret"));
  const std::string keys = "server.api_keys_file=" + directory_.Path("keys.yaml");
  EXPECT_THAT(
      refusal({}),
      HasSubstr("without TLS and without API keys or client certificates; set server.tls."));
  EXPECT_THAT(refusal(TlsOptions()), HasSubstr(", without API keys or client certificates; set"));
  EXPECT_THAT(refusal({keys}), HasSubstr(", without TLS; set"));
  for (std::vector<std::string> options :
       {MutualOptions(authority_.certificate()), TlsOptions({keys})}) {
    options.emplace_back("server.address=0.0.0.0:0");
    ASSERT_NO_FATAL_FAILURE(Start(options));
    EXPECT_THAT(server_->log(), ::testing::Not(HasSubstr(" insecure ")));
  }
  ASSERT_NO_FATAL_FAILURE(Start({"server.address=0.0.0.0:0", "server.insecure=true"}));
  EXPECT_THAT(server_->log(), HasSubstr(" insecure address=0.0.0.0:"));
  EXPECT_THAT(server_->log(), HasSubstr("without=\"TLS and without API keys"));
}

TEST_F(TlsTest, ABrokenFileEndsTheStartWithItsOptionAndName) {
  PutServer({authority_.certificate(), "no key"});
  ServerProcess server({"--model", model_path_, "--set",
                        "server.tls.cert_file=" + directory_.Path("cert.pem"), "--set",
                        "server.tls.key_file=" + directory_.Path("key.pem")});
  EXPECT_EQ(server.WaitForExit(), 1);
  EXPECT_TRUE(server.WaitForLog("server.tls.key_file: " + directory_.Path("key.pem")))
      << server.log();
}

TEST_F(TlsTest, AKeyIsNeededOverTlsToo) {
  PutServer(authority_.Issue("server"));
  Put("keys.yaml", KeyEntry("alice", "secret"));
  ASSERT_NO_FATAL_FAILURE(
      Start(TlsOptions({"server.api_keys_file=" + directory_.Path("keys.yaml")})));
  const auto stub = Connect(authority_.certificate());
  EXPECT_EQ(Call(*stub).error_code(), StatusCode::UNAUTHENTICATED);
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer secret");
  v1::GetModelInfoResponse info;
  EXPECT_TRUE(stub->GetModelInfo(&context, {}, &info).ok());
}

TEST_F(TlsTest, TheClientTakesAnAuthorityAndACertificate) {
  PutServer(authority_.Issue("server"));
  Put("ca.pem", authority_.certificate());
  const TestIdentity me = authority_.Issue("me");
  Put("me.pem", me.certificate);
  Put("me.key", me.key);
  ASSERT_NO_FATAL_FAILURE(Start(MutualOptions(authority_.certificate())));
  const auto health = [this](const std::vector<std::string>& options) {
    std::vector<std::string> arguments = {ASYMSERVE_CLIENT_BINARY, "health", "--address",
                                          server_->address()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return RunProgram(arguments);
  };
  const std::string ca = directory_.Path("ca.pem");
  const std::string certificate = directory_.Path("me.pem"), key = directory_.Path("me.key");
  EXPECT_EQ(health({"--tls-ca", ca, "--tls-cert", certificate, "--tls-key", key}).out, "SERVING\n");
  EXPECT_THAT(health({"--tls-ca", ca}).err, ::testing::StartsWith("UNAVAILABLE"));
  EXPECT_THAT(health({}).err, ::testing::StartsWith("UNAVAILABLE"));
  EXPECT_EQ(health({"--tls-ca", ca, "--tls-cert", certificate}).status, 2);
  EXPECT_THAT(health({"--tls-ca", model_path_}).err, HasSubstr("not PEM"));
  EXPECT_THAT(health({"--tls-ca", "none.pem"}).err, HasSubstr("--tls-ca: none.pem: not found"));
}

}  // namespace
}  // namespace asymserve::testing
