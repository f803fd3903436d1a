#include <gmock/gmock.h>
#include <signal.h>

#include <future>

#include "asymserve/v1/admin.grpc.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

#include "tests/server/api_key_file.h"
#include "tests/server/process_fixture.h"
#include "tests/server/raw_call.h"
#include "tests/server/test_certificates.h"
#include "tests/support/file_io.h"

// The admin port of the real server.

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class AdminTest : public ProcessFixture {
 protected:
  void StartWithAdmin(std::vector<std::string> options = {}) {
    options.emplace_back("admin.address=127.0.0.1:0");
    ASSERT_NO_FATAL_FAILURE(Start(options));
    admin_ = Admin();
  }
  std::string admin_address() { return server_->LogValue("admin", "address"); }
  std::shared_ptr<grpc::Channel> AdminChannel(
      const std::shared_ptr<grpc::ChannelCredentials>& credentials =
          grpc::InsecureChannelCredentials()) {
    return grpc::CreateChannel(admin_address(), credentials);
  }
  std::unique_ptr<v1::Admin::Stub> Admin() { return v1::Admin::NewStub(AdminChannel()); }

  static void AddKey(const std::string& key, grpc::ClientContext& context) {
    if (!key.empty()) context.AddMetadata("authorization", "Bearer " + key);
  }
  static grpc::Status GetStatus(v1::Admin::Stub& stub, v1::GetStatusResponse& response,
                                const std::string& key = "") {
    grpc::ClientContext context;
    AddKey(key, context);
    return stub.GetStatus(&context, {}, &response);
  }
  v1::GetStatusResponse Status() {
    v1::GetStatusResponse response;
    const grpc::Status status = GetStatus(*admin_, response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  v1::ReloadResponse Reload() {
    grpc::ClientContext context;
    v1::ReloadResponse response;
    const grpc::Status status = admin_->Reload(&context, {}, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  grpc::Status SetLogLevel(const std::string& level, std::string* previous = nullptr) {
    grpc::ClientContext context;
    v1::SetLogLevelRequest request;
    request.set_level(level);
    v1::SetLogLevelResponse response;
    const grpc::Status status = admin_->SetLogLevel(&context, request, &response);
    if (previous != nullptr) *previous = response.previous();
    return status;
  }
  grpc::Status Drain(v1::DrainResponse& response) {
    grpc::ClientContext context;
    return admin_->Drain(&context, {}, &response);
  }
  /// One empty message to any method.
  static StatusCode Raw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                        const std::string& key = "") {
    const Metadata metadata =
        key.empty() ? Metadata() : Metadata{{"authorization", "Bearer " + key}};
    return RawCall(channel, method, "", metadata).error_code();
  }
  Finished Client(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {ASYMSERVE_CLIENT_BINARY, "admin"});
    arguments.insert(arguments.end(), {"--address", admin_address()});
    return RunProgram(arguments);
  }

  std::unique_ptr<v1::Admin::Stub> admin_;
};

const char* const kAdminMethods[] = {"GetStatus", "Drain", "Reload", "SetLogLevel",
                                     "DropPrefixCache"};

TEST_F(AdminTest, ThereIsNoSuchPortUnlessItIsAskedFor) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(admin_address(), "");
  for (const char* method : kAdminMethods) {
    EXPECT_EQ(Raw(server_->Channel(), std::string("/asymserve.v1.Admin/") + method),
              StatusCode::UNIMPLEMENTED);
  }
}

TEST_F(AdminTest, NeitherPortHasTheServicesOfTheOther) {
  ASSERT_NO_FATAL_FAILURE(StartWithAdmin());
  for (const char* method : kAdminMethods) {
    const std::string path = std::string("/asymserve.v1.Admin/") + method;
    EXPECT_EQ(Raw(server_->Channel(), path), StatusCode::UNIMPLEMENTED) << path;
  }
  for (const char* method :
       {"Generate", "GenerateUnary", "Chat", "Tokenize", "Detokenize", "GetModelInfo"}) {
    const std::string path = std::string("/asymserve.v1.Inference/") + method;
    EXPECT_EQ(Raw(AdminChannel(), path), StatusCode::UNIMPLEMENTED) << path;
  }
  EXPECT_EQ(Raw(AdminChannel(), "/grpc.health.v1.Health/Check"), StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(Raw(server_->Channel(), "/grpc.health.v1.Health/Check"), StatusCode::OK);
  EXPECT_TRUE(Unary(Request("both serve", 1)).ok());
  EXPECT_EQ(Status().state(), v1::GetStatusResponse::SERVING);
}

TEST_F(AdminTest, ReflectionIsThereOrNotAsOnTheOtherPort) {
  const std::string reflection = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  for (const bool wanted : {true, false}) {
    ASSERT_NO_FATAL_FAILURE(
        StartWithAdmin({std::string("server.reflection=") + (wanted ? "true" : "false")}));
    const StatusCode expected = wanted ? StatusCode::OK : StatusCode::UNIMPLEMENTED;
    EXPECT_EQ(Raw(AdminChannel(), reflection), expected);
    EXPECT_EQ(Raw(server_->Channel(), reflection), expected);
  }
}

TEST_F(AdminTest, TheStatusSaysWhatTheServerDoes) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(
      StartWithAdmin({"model.name=toy", "engine.max_running=1", "kv.scheme=int8",
                      "server.drain_seconds=3", "server.stream_queue_messages=1000000"}));
  v1::GetStatusResponse status = Status();
  EXPECT_EQ(status.state(), v1::GetStatusResponse::SERVING);
  EXPECT_EQ(status.model(), "toy");
  EXPECT_EQ(status.kv_scheme(), "int8");
  EXPECT_EQ(status.log_level(), "info");
  EXPECT_EQ(status.drain_budget_seconds(), 3);
  EXPECT_FALSE(status.has_seconds_since_last_step());
  EXPECT_FALSE(status.has_draining_seconds());
  EXPECT_GT(status.uptime_seconds(), 0);
  EXPECT_GT(status.pages_total(), 0);
  EXPECT_GT(status.process_resident_bytes(), 1 << 20);
  int64_t planned = 0;
  for (const v1::MemoryUse& use : status.memory()) {
    planned += use.planned_bytes();
    EXPECT_GE(use.resident_bytes(), 0) << use.class_name();
    const double metric =
        server_->Metrics()["asymserve_memory_planned_bytes{class=\"" + use.class_name() + "\"}"];
    EXPECT_EQ(static_cast<double>(use.planned_bytes()), metric) << use.class_name();
  }
  EXPECT_GT(planned, 64 << 20);
  EXPECT_EQ(status.ledger_size(), 10);

  grpc::ClientContext first, second;
  const auto runs = stub_->Generate(&first, Request("runs", 3000));
  v1::GenerateResponse message;
  ASSERT_TRUE(runs->Read(&message));
  const auto waits = stub_->Generate(&second, Request("waits", 1));
  // The engine publishes its state behind the tokens.
  ASSERT_TRUE(Eventually([&] {
    status = Status();
    return status.sequences_waiting() == 1 && status.sequences_running() == 1;
  }));
  EXPECT_EQ(status.open_calls(), 2);
  EXPECT_GT(status.pages_used(), 0);
  EXPECT_GT(status.slabs_used(), 0);
  EXPECT_LT(status.seconds_since_last_step(), 5);
  first.TryCancel();
  second.TryCancel();
  (void)runs->Finish();
  (void)waits->Finish();
}

TEST_F(AdminTest, DrainEndsTheServerAsSigtermDoesAndSigtermAfterItIsTheFirst) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(
      StartWithAdmin({"server.drain_seconds=60", "server.stream_queue_messages=1000000"}));
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request("to the end", 4000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  ASSERT_TRUE(Eventually([&] { return Status().sequences_running() == 1; }));
  v1::DrainResponse drain;
  ASSERT_TRUE(Drain(drain).ok());
  EXPECT_EQ(drain.sequences_running(), 1);
  EXPECT_EQ(drain.sequences_waiting(), 0);
  EXPECT_EQ(drain.budget_seconds(), 60);
  ASSERT_TRUE(Eventually([&] { return Status().state() == v1::GetStatusResponse::DRAINING; }));
  EXPECT_TRUE(Status().has_draining_seconds());
  EXPECT_EQ(Unary(Request("refused", 1)).error_code(), StatusCode::UNAVAILABLE);
  ASSERT_TRUE(Drain(drain).ok()) << "a second one has no effect";
  server_->Signal(SIGTERM);
  ASSERT_TRUE(server_->WaitForLog("stop_requested"));
  bool final = false;
  while (reader->Read(&message)) final = final || message.has_final();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(final);
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_TRUE(server_->WaitForLog("finished_all=true"));
  EXPECT_TRUE(server_->WaitForLog("warn admin_call method=Drain code=OK"));
}

TEST_F(AdminTest, ReloadSaysWhatChangedAndWhatFailed) {
  const std::string config = directory_.Path("asymserve.yaml"), keys = directory_.Path("keys.yaml");
  WriteFile(config, "server: {drain_seconds: 20}\n");
  WriteFile(keys, KeyEntry("alice", "secret"));
  server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
      "--config", config, "--model", model_path_, "--set", "engine.threads=1", "--set",
      "engine.kv_memory_bytes=64MiB", "--set", "admin.address=127.0.0.1:0", "--set",
      "server.api_keys_file=" + keys});
  ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
  admin_ = Admin();
  const auto what = [](const v1::ReloadResponse& response) {
    std::vector<std::string> parts;
    for (const auto& part : response.parts()) parts.push_back(part.what());
    return parts;
  };
  WriteFile(config, "server: {drain_seconds: 30}\nengine: {step_tokens: 300}\n");
  v1::ReloadResponse response = Reload();
  EXPECT_THAT(what(response), ElementsAre("api_keys", "config"));
  EXPECT_EQ(response.parts(0).error(), "");
  EXPECT_EQ(response.parts(1).error(), "");
  EXPECT_THAT(response.changed(), ElementsAre("server.drain_seconds: 20 -> 30"));
  EXPECT_THAT(response.needs_restart(), ElementsAre("engine.step_tokens: 512 -> 300"));
  EXPECT_EQ(Status().drain_budget_seconds(), 30);
  WriteFile(config, "server: {drain_seconds: -1}\n");
  WriteFile(keys, "alice: nothing\n");
  response = Reload();
  EXPECT_THAT(what(response), ElementsAre("api_keys", "config"));
  EXPECT_THAT(response.parts(0).error(), HasSubstr(keys + ":1: "));
  EXPECT_THAT(response.parts(1).error(), HasSubstr(config + ":1: server.drain_seconds: expected"));
  EXPECT_EQ(Status().drain_budget_seconds(), 30);
  EXPECT_TRUE(server_->WaitForLog(
      "warn admin_call method=Reload code=OK detail=\"api_keys: failed, config: failed\""));
}

TEST_F(AdminTest, TheLogLevelLastsUntilTheNextReloadAndTheCallIsInTheLog) {
  ASSERT_NO_FATAL_FAILURE(StartWithAdmin());
  std::string previous;
  ASSERT_TRUE(SetLogLevel("off", &previous).ok());
  EXPECT_EQ(previous, "info");
  EXPECT_TRUE(server_->WaitForLog(
      "warn admin_call method=SetLogLevel code=OK detail=\"info -> off\" key=- certificate=- "
      "peer=ipv4:127.0.0.1:"));
  ASSERT_TRUE(Unary(Request("not logged", 3)).ok());
  EXPECT_EQ(Status().log_level(), "off");
  EXPECT_THAT(Reload().changed(), ElementsAre("log.level: off -> info"));
  ASSERT_TRUE(Unary(Request("logged", 4)).ok());
  ASSERT_TRUE(server_->WaitForLog("generated_tokens=4"));
  EXPECT_THAT(server_->log(), Not(HasSubstr("generated_tokens=3")));
  const grpc::Status wrong = SetLogLevel("loud");
  EXPECT_EQ(wrong.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(wrong.error_message(),
            "level: expected one of debug, info, warn, error, off, got \"loud\"");
  EXPECT_EQ(Status().log_level(), "info");
}

TEST_F(AdminTest, DroppingThePrefixCacheMakesTheNextPromptNew) {
  ASSERT_NO_FATAL_FAILURE(StartWithAdmin());
  const v1::GenerateRequest request = Request(std::string(1000, 'x'), 1);
  const auto cached = [&] {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    EXPECT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
    return response.sequences(0).final().usage().cached_tokens();
  };
  EXPECT_EQ(cached(), 0);
  EXPECT_GT(cached(), 0);
  EXPECT_GT(Status().slabs_cached(), 0);
  grpc::ClientContext context;
  v1::DropPrefixCacheResponse response;
  ASSERT_TRUE(admin_->DropPrefixCache(&context, {}, &response).ok());
  EXPECT_GT(response.slabs(), 0);
  EXPECT_TRUE(Eventually([&] { return Status().slabs_cached() == 0; }));
  EXPECT_EQ(cached(), 0);
}

class AdminKeysTest : public AdminTest {
 protected:
  void StartWithKeys() {
    WriteFile(keys_, KeyEntry("alice", "caller"));
    WriteFile(admin_keys_, KeyEntry("olga", "operator"));
    ASSERT_NO_FATAL_FAILURE(
        StartWithAdmin({"server.api_keys_file=" + keys_, "admin.api_keys_file=" + admin_keys_}));
  }
  StatusCode AdminCode(const std::string& key) {
    v1::GetStatusResponse response;
    return GetStatus(*admin_, response, key).error_code();
  }
  StatusCode CallerCode(const std::string& key) {
    return Raw(server_->Channel(), "/asymserve.v1.Inference/GetModelInfo", key);
  }

  const std::string keys_ = directory_.Path("keys.yaml");
  const std::string admin_keys_ = directory_.Path("operators.yaml");
};

TEST_F(AdminKeysTest, AKeyOpensItsOwnPortOnly) {
  ASSERT_NO_FATAL_FAILURE(StartWithKeys());
  EXPECT_EQ(AdminCode("operator"), StatusCode::OK);
  EXPECT_EQ(CallerCode("caller"), StatusCode::OK);
  EXPECT_EQ(AdminCode("caller"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CallerCode("operator"), StatusCode::UNAUTHENTICATED);
  for (const char* key : {"", "caller"}) {
    for (const char* method : kAdminMethods) {
      EXPECT_EQ(Raw(AdminChannel(), std::string("/asymserve.v1.Admin/") + method, key),
                StatusCode::UNAUTHENTICATED);
    }
    for (const char* path :
         {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
          "/grpc.health.v1.Health/Check", "/asymserve.v1.Inference/GetModelInfo", "/no.Such/One"}) {
      EXPECT_EQ(Raw(AdminChannel(), path, key), StatusCode::UNAUTHENTICATED) << path;
    }
  }
  EXPECT_EQ(AdminCode("operator"), StatusCode::OK) << "somebody has ended the server";
  EXPECT_TRUE(server_->WaitForLog("info admin_call method=GetStatus code=OK detail=\"\" key=olga"));
  EXPECT_TRUE(server_->WaitForLog("warn admin_call method=Drain code=UNAUTHENTICATED"));
  auto metrics = server_->Metrics();
  EXPECT_GE(metrics["asymserve_rejections_total{reason=\"no_key\"}"], 5);
}

TEST_F(AdminKeysTest, AKeyOfBothFilesIsRefusedInTheOneThatIsReadLast) {
  ASSERT_NO_FATAL_FAILURE(StartWithKeys());
  const auto errors = [this](const std::string& key) {
    grpc::ClientContext context;
    AddKey(key, context);
    v1::ReloadResponse response;
    EXPECT_TRUE(admin_->Reload(&context, {}, &response).ok());
    std::string text;
    for (const auto& part : response.parts()) text += part.error();
    return text;
  };
  WriteFile(admin_keys_, KeyEntry("olga", "operator") + KeyEntry("otto", "caller"));
  EXPECT_EQ(errors("operator"),
            "admin.api_keys_file: " + admin_keys_ + ": otto: its key is one of " + keys_ + ", too");
  EXPECT_EQ(AdminCode("caller"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(AdminCode("operator"), StatusCode::OK);
  WriteFile(admin_keys_, KeyEntry("olga", "operator"));
  WriteFile(keys_, KeyEntry("alice", "caller") + KeyEntry("olga", "operator"));
  EXPECT_EQ(errors("operator"), "server.api_keys_file: " + keys_ + ": olga: its key is one of " +
                                    admin_keys_ + ", too");
  EXPECT_EQ(CallerCode("operator"), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(CallerCode("caller"), StatusCode::OK);
}

TEST_F(AdminKeysTest, OperatorsKeysAreReadAgainWhenTheirFileChanges) {
  ASSERT_NO_FATAL_FAILURE(StartWithKeys());
  ReplaceFile(admin_keys_, KeyEntry("olga", "renewed"));
  EXPECT_TRUE(Eventually([&] { return AdminCode("renewed") == StatusCode::OK; }));
  EXPECT_EQ(AdminCode("operator"), StatusCode::UNAUTHENTICATED);
  const char* const reloads = "asymserve_reloads_total{what=\"admin_api_keys\",result=\"ok\"}";
  EXPECT_TRUE(Eventually([&] { return server_->Metrics()[reloads] == 1; }));
}

TEST_F(AdminTest, BeyondLoopbackItNeedsTlsAndAWayToKnowOperatorsOrToBeToldOtherwise) {
  const TestAuthority authority("authority");
  const TestIdentity identity = authority.Issue("server");
  WriteFile(directory_.Path("cert.pem"), identity.certificate);
  WriteFile(directory_.Path("key.pem"), identity.key);
  WriteFile(directory_.Path("keys.yaml"), KeyEntry("olga", "operator"));
  const std::vector<std::string> tls = {"admin.tls.cert_file=" + directory_.Path("cert.pem"),
                                        "admin.tls.key_file=" + directory_.Path("key.pem")};
  const std::string keys = "admin.api_keys_file=" + directory_.Path("keys.yaml");
  const auto refusal = [&](const std::vector<std::string>& options) {
    std::vector<std::string> arguments = {"--model", model_path_, "--set",
                                          "admin.address=0.0.0.0:0"};
    for (const std::string& option : options) arguments.insert(arguments.end(), {"--set", option});
    ServerProcess server(arguments);
    EXPECT_EQ(server.WaitForExit(), 1);
    return server.log();
  };
  EXPECT_THAT(refusal({}), HasSubstr("admin.address: other machines reach 0.0.0.0:"));
  EXPECT_THAT(refusal({}), HasSubstr("without TLS and without API keys or client certificates; set "
                                     "admin.tls.cert_file and key_file, and admin.api_keys_file or "
                                     "admin.tls.client_ca_file; or listen on 127.0.0.1"));
  EXPECT_THAT(refusal({keys}), HasSubstr(", without TLS; set "));
  EXPECT_THAT(refusal(tls), HasSubstr(", without API keys or client certificates; set "));
  ASSERT_NO_FATAL_FAILURE(Start({"admin.address=0.0.0.0:0", tls[0], tls[1], keys}));
  EXPECT_THAT(server_->log(), Not(HasSubstr(" insecure ")));
  ASSERT_NO_FATAL_FAILURE(Start({"admin.address=0.0.0.0:0", "admin.insecure=true"}));
  EXPECT_TRUE(server_->WaitForLog(" insecure address=0.0.0.0:"));
}

TEST_F(AdminTest, WithClientAuthoritiesTheCertificatesNameIsInTheLog) {
  const TestAuthority authority("authority"), operators("operators");
  const TestIdentity identity = authority.Issue("server");
  WriteFile(directory_.Path("cert.pem"), identity.certificate);
  WriteFile(directory_.Path("key.pem"), identity.key);
  WriteFile(directory_.Path("operators.pem"), operators.certificate());
  ASSERT_NO_FATAL_FAILURE(
      StartWithAdmin({"admin.tls.cert_file=" + directory_.Path("cert.pem"),
                      "admin.tls.key_file=" + directory_.Path("key.pem"),
                      "admin.tls.client_ca_file=" + directory_.Path("operators.pem")}));
  const auto code = [&](const TestIdentity& client) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authority.certificate();
    options.pem_cert_chain = client.certificate;
    options.pem_private_key = client.key;
    const auto stub = v1::Admin::NewStub(AdminChannel(grpc::SslCredentials(options)));
    v1::GetStatusResponse response;
    return GetStatus(*stub, response).error_code();
  };
  EXPECT_EQ(code(operators.Issue("olga")), StatusCode::OK);
  EXPECT_EQ(code(authority.Issue("mallory")), StatusCode::UNAVAILABLE);
  EXPECT_EQ(code({}), StatusCode::UNAVAILABLE);
  EXPECT_TRUE(server_->WaitForLog("method=GetStatus code=OK detail=\"\" key=- certificate=olga"));
  EXPECT_TRUE(Unary(Request("the other port has no TLS", 1)).ok());
  EXPECT_GT(server_->Metrics()["asymserve_tls_certificate_not_after_seconds{port=\"admin\"}"], 1e9);
  const TestIdentity renewed = authority.Issue("renewed");
  WriteFile(directory_.Path("cert.pem"), renewed.certificate);
  WriteFile(directory_.Path("key.pem"), renewed.key);
  const char* const reloads = "asymserve_reloads_total{what=\"admin_tls\",result=\"ok\"}";
  EXPECT_TRUE(Eventually([&] { return server_->Metrics()[reloads] >= 1; }));
  EXPECT_EQ(code(operators.Issue("olga")), StatusCode::OK);
}

TEST_F(AdminTest, TheClientPrintsResponsesAsJsonAndFailsWhenAReloadDoes) {
  WriteFile(directory_.Path("keys.yaml"), KeyEntry("alice", "secret"));
  ASSERT_NO_FATAL_FAILURE(
      StartWithAdmin({"server.api_keys_file=" + directory_.Path("keys.yaml"), "model.name=toy"}));
  const Finished status = Client({"status"});
  EXPECT_EQ(status.status, 0) << status.err;
  EXPECT_THAT(status.out, HasSubstr("\"state\": \"SERVING\""));
  EXPECT_THAT(status.out, HasSubstr("\"model\": \"toy\""));
  EXPECT_EQ(Client({"reload"}).status, 0);
  const Finished level = Client({"log-level", "debug"});
  EXPECT_EQ(level.status, 0) << level.err;
  EXPECT_THAT(level.out, HasSubstr("\"previous\": \"info\""));
  EXPECT_THAT(Client({"log-level", "loud"}).err, HasSubstr("INVALID_ARGUMENT: level: "));
  EXPECT_EQ(Client({"drop-prefix-cache"}).status, 0);
  WriteFile(directory_.Path("keys.yaml"), "broken");
  const Finished reload = Client({"reload"});
  EXPECT_EQ(reload.status, 1);
  EXPECT_THAT(reload.out, HasSubstr("keys.yaml"));
  EXPECT_EQ(Client({"drain"}).status, 0);
  EXPECT_EQ(server_->WaitForExit(), 0);
}

}  // namespace
}  // namespace asymserve::testing
