#include "server/authentication.h"

#include <gmock/gmock.h>

#include <chrono>
#include <future>
#include <memory>
#include <thread>

#include "asymserve/v1/rpc_status.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"

#include "tests/server/api_key_file.h"
#include "tests/server/raw_call.h"
#include "tests/server/service_fixture.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

class AuthenticationTest : public ServiceFixture {
 protected:
  AuthenticationTest() { engine_options_.tenants = {{.name = "gold", .weight = 1}}; }

  void StartWith(const std::string& entries) {
    Replace(entries);
    keys_ = std::make_unique<KeyRing>(path_);
    const absl::Status read = keys_->Reload();
    ASSERT_TRUE(read.ok()) << read;
    Start();
  }
  void Replace(const std::string& entries) const { WriteFile(path_, entries); }

  static Metadata Bearer(const std::string& key) { return {{"authorization", "Bearer " + key}}; }

  static void Add(const Metadata& metadata, grpc::ClientContext& context) {
    for (const auto& [name, value] : metadata) context.AddMetadata(name, value);
  }

  grpc::Status Unary(const Metadata& metadata, int32_t max_tokens = 2) {
    grpc::ClientContext context;
    Add(metadata, context);
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, Request("a", max_tokens), &response);
  }

  grpc::Status Raw(const std::string& method, const std::string& message,
                   const Metadata& metadata) {
    return RawCall(channel_, method, message, metadata);
  }

  static double RetrySeconds(const grpc::Status& status) {
    v1::RpcStatus details;
    v1::RetryInfo retry;
    if (!details.ParseFromString(status.error_details()) || details.details_size() != 1) return -1;
    if (!retry.ParseFromString(details.details(0).value())) return -1;
    return static_cast<double>(retry.retry_delay().seconds()) + 1e-9 * retry.retry_delay().nanos();
  }

  uint64_t SequencesOf(const std::string& tenant) const {
    for (const TenantMetrics& metrics : engine_metrics().tenants) {
      if (metrics.name == tenant) return metrics.sequences.value();
    }
    return 0;
  }

  const TempDir directory_;
  const std::string path_ = directory_.Path("keys.yaml");
};

TEST_F(AuthenticationTest, EveryMethodNeedsAKeyButTheHealthService) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "secret")));
  for (const std::string_view method : kMethodNames) {
    const std::string path = "/asymserve.v1.Inference/" + std::string(method);
    EXPECT_EQ(Raw(path, "", {}).error_code(), StatusCode::UNAUTHENTICATED) << path;
    EXPECT_NE(Raw(path, "", Bearer("secret")).error_code(), StatusCode::UNAUTHENTICATED) << path;
  }
  EXPECT_EQ(Raw("/no.such.Service/Method", "", {}).error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Raw("/no.such.Service/Method", "", Bearer("secret")).error_code(),
            StatusCode::UNIMPLEMENTED);
  const std::string list_services("\x3a\x00", 2);
  EXPECT_EQ(Raw(kReflection, list_services, {}).error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Raw(kReflection, list_services, Bearer("guess")).error_code(),
            StatusCode::UNAUTHENTICATED);
  EXPECT_TRUE(Raw(kReflection, list_services, Bearer("secret")).ok());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse health;
  EXPECT_TRUE(grpc::health::v1::Health::NewStub(channel_)->Check(&context, {}, &health).ok());
  EXPECT_EQ(Rejected(Rejection::kNoKey), kMethodNames.size() + 2);
  EXPECT_EQ(Rejected(Rejection::kUnknownKey), 1u);
  EXPECT_EQ(Ended(Method::kChat, StatusCode::UNAUTHENTICATED), 1u);
}

TEST_F(AuthenticationTest, AnExpiredKeyOpensNothingAndTheSameNameMayHaveAnother) {
  const auto entry = [](std::chrono::seconds from_now) {
    const auto end = std::chrono::system_clock::now().time_since_epoch() + from_now;
    return KeyEntry(
        "alice", "secret",
        "expires: " + FormatExpiry(std::chrono::floor<std::chrono::seconds>(end).count()));
  };
  ASSERT_NO_FATAL_FAILURE(StartWith(entry(std::chrono::hours(1))));
  EXPECT_TRUE(Unary(Bearer("secret")).ok());
  Replace(entry(std::chrono::seconds(0)));
  ASSERT_TRUE(keys_->Reload().ok());
  const grpc::Status refused = Unary(Bearer("secret"));
  EXPECT_EQ(refused.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(refused.error_message(), "API key: it has expired");
  EXPECT_EQ(Raw(kReflection, std::string("\x3a\x00", 2), Bearer("secret")).error_code(),
            StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(Rejected(Rejection::kExpiredKey), 2u);
  EXPECT_EQ(Rejected(Rejection::kUnknownKey), 0u);
  Replace(KeyEntry("alice", "another"));
  ASSERT_TRUE(keys_->Reload().ok());
  EXPECT_TRUE(Unary(Bearer("another")).ok());
}

TEST_F(AuthenticationTest, WithoutAFileOfKeysNobodyNeedsOne) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_TRUE(Unary({}).ok());
  EXPECT_TRUE(Unary(Bearer("whatever")).ok());
  EXPECT_TRUE(Raw(kReflection, std::string("\x3a\x00", 2), {}).ok());
}

TEST_F(AuthenticationTest, RefusalsSayWhatIsWrongAndCountByReason) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "secret") + KeyEntry("bob", "other")));
  EXPECT_TRUE(Unary(Bearer("secret")).ok());
  EXPECT_TRUE(Unary({{"x-api-key", "other"}}).ok());
  const grpc::Status none = Unary({});
  EXPECT_EQ(none.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_THAT(none.error_message(), HasSubstr("an API key is required"));
  const grpc::Status wrong = Unary(Bearer("Secret"));
  EXPECT_EQ(wrong.error_code(), StatusCode::UNAUTHENTICATED);
  EXPECT_EQ(wrong.error_message(), "API key: not a valid one");
  for (const Metadata& malformed :
       {Metadata{{"authorization", "Basic secret"}}, Metadata{{"authorization", "secret"}},
        Metadata{{"x-api-key", "secret"}, {"authorization", "Bearer secret"}},
        Metadata{{"x-api-key", "secret"}, {"x-api-key", "secret"}}}) {
    const grpc::Status status = Unary(malformed);
    EXPECT_EQ(status.error_code(), StatusCode::UNAUTHENTICATED);
    EXPECT_THAT(status.error_message(), HasSubstr("expected authorization: Bearer KEY"));
  }
  EXPECT_EQ(Rejected(Rejection::kNoKey), 1u);
  EXPECT_EQ(Rejected(Rejection::kUnknownKey), 1u);
  EXPECT_EQ(Rejected(Rejection::kMalformedKey), 4u);
  EXPECT_EQ(metrics_.refusal_seconds.count(), 6u);
  EXPECT_EQ(Ended(Method::kGenerateUnary, StatusCode::UNAUTHENTICATED), 6u);
}

TEST_F(AuthenticationTest, TheKeysTenantIsTheCallsWhateverItsMetadataSay) {
  ASSERT_NO_FATAL_FAILURE(
      StartWith(KeyEntry("alice", "rich", "tenant: gold") + KeyEntry("bob", "poor")));
  const auto call = [this](const std::string& key, const std::string& tenant) {
    Metadata metadata = Bearer(key);
    metadata.emplace_back("x-tenant-id", tenant);
    return Unary(metadata);
  };
  EXPECT_TRUE(call("poor", "gold").ok());
  EXPECT_EQ(SequencesOf("gold"), 0u);
  EXPECT_TRUE(call("rich", "silver").ok());
  EXPECT_TRUE(call("rich", "not a tenant").ok());
  EXPECT_EQ(SequencesOf("gold"), 2u);
}

TEST_F(AuthenticationTest, RequestsOverTheKeysRateAreToldWhenToComeBack) {
  ASSERT_NO_FATAL_FAILURE(
      StartWith(KeyEntry("alice", "slow", "requests_per_second: 0.01") + KeyEntry("bob", "free")));
  EXPECT_TRUE(Unary(Bearer("slow")).ok());
  const grpc::Status status = Unary(Bearer("slow"));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "requests_per_second: the key's limit is 0.01 calls");
  EXPECT_GT(RetrySeconds(status), 60);
  EXPECT_LE(RetrySeconds(status), 100);
  EXPECT_EQ(Raw("/asymserve.v1.Inference/Tokenize", "", Bearer("slow")).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_TRUE(Unary(Bearer("free")).ok()) << "another key pays for this one";
  EXPECT_EQ(Rejected(Rejection::kKeyRequests), 2u);
}

TEST_F(AuthenticationTest, ConcurrentCallsOfAKeyAreLimitedUntilOneEnds) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "one", "concurrent: 1")));
  std::future<grpc::Status> first;
  {
    const HoldSteps hold(model_);
    first = std::async([&] { return Unary(Bearer("one")); });
    ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
    const grpc::Status second = Unary(Bearer("one"));
    EXPECT_EQ(second.error_code(), StatusCode::RESOURCE_EXHAUSTED);
    EXPECT_EQ(second.error_message(), "concurrent: the key's limit is 1 calls");
    EXPECT_EQ(RetrySeconds(second), 1);
    EXPECT_EQ(Rejected(Rejection::kKeyConcurrent), 1u);
  }
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(Unary(Bearer("one")).ok());
}

TEST_F(AuthenticationTest, TokensOfCallsThatEndedCountAgainstTheNext) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "few", "tokens_per_minute: 60")));
  EXPECT_TRUE(Unary(Bearer("few"), 99).ok());  // and one of the prompt: 40 over
  const grpc::Status status = Unary(Bearer("few"));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "tokens_per_minute: the key's limit is 60 tokens");
  EXPECT_GT(RetrySeconds(status), 30);
  EXPECT_LE(RetrySeconds(status), 41);
  EXPECT_NE(Raw("/asymserve.v1.Inference/Tokenize", "", Bearer("few")).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(Rejected(Rejection::kKeyTokens), 1u);
}

TEST_F(AuthenticationTest, APromptThatWasNeverComputedCostsTheKeyNothing) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "few", "tokens_per_minute: 60")));
  std::future<grpc::Status> running, late;
  {
    const HoldSteps hold(model_);
    running = std::async([&] { return Unary(Bearer("few")); });
    ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
    late = std::async([&] {
      grpc::ClientContext context;
      Add(Bearer("few"), context);
      v1::GenerateRequest request = Request(std::string(100, 'a'), 2);
      request.set_max_queue_ms(1);
      v1::GenerateUnaryResponse response;
      return stub_->GenerateUnary(&context, request, &response);
    });
    ASSERT_TRUE(Eventually([&] { return SequencesOf("default") == 2; }));
    // Its time is over before the next step.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_TRUE(running.get().ok());
  EXPECT_EQ(late.get().error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_TRUE(Unary(Bearer("few")).ok());
}

TEST_F(AuthenticationTest, ARevokedKeyRefusesNewCallsAndItsRunningStreamFinishes) {
  ASSERT_NO_FATAL_FAILURE(StartWith(KeyEntry("alice", "old") + KeyEntry("bob", "other")));
  grpc::ClientContext context;
  Add(Bearer("old"), context);
  std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader;
  {
    const HoldSteps hold(model_);
    reader = stub_->Generate(&context, Request("a", 200));
    ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
    Replace(KeyEntry("alice", "new") + KeyEntry("bob", "other"));
    ASSERT_TRUE(keys_->Reload().ok());
    EXPECT_EQ(Unary(Bearer("old")).error_code(), StatusCode::UNAUTHENTICATED);
    EXPECT_EQ(Ended(Method::kGenerate, StatusCode::OK), 0u) << "the stream ended too early";
  }
  EXPECT_TRUE(Unary(Bearer("new")).ok());
  v1::GenerateResponse message;
  bool final = false;
  while (reader->Read(&message)) final = final || message.has_final();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(final);
}

}  // namespace
}  // namespace asymserve::testing
