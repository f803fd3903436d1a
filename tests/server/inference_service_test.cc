#include "server/inference_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "asymserve/v1/rpc_status.pb.h"

#include "tests/server/raw_call.h"
#include "tests/server/service_fixture.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;

class InferenceServiceTest : public ServiceFixture {
 protected:
  /// A call with bytes that are no request: if they are parsed, it is malformed.
  grpc::Status SendGarbage(const std::string& tenant) {
    return RawCall(channel_, "/asymserve.v1.Inference/GenerateUnary", "\xFF\xFF\xFF",
                   {{"x-tenant-id", tenant}});
  }
};

TEST_F(InferenceServiceTest, StreamsTheTextAndEndsWithTheReasonAndTheCounts) {
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request("xyz", 5));
  std::string text;
  v1::GenerateResponse message, last;
  int finals = 0;
  while (reader->Read(&message)) {
    text += message.text();
    finals += message.has_final() ? 1 : 0;
    last = message;
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "abcde");
  EXPECT_EQ(finals, 1);
  EXPECT_EQ(last.final().reason(), v1::FINISH_REASON_LENGTH);
  EXPECT_EQ(last.final().usage().prompt_tokens(), 3);
  EXPECT_EQ(last.final().usage().generated_tokens(), 5);
  EXPECT_GT(last.final().timings().total_seconds(), 0);
  EXPECT_EQ(Ended(Method::kGenerate, StatusCode::OK), 1u);
}

TEST_F(InferenceServiceTest, TheUnaryAnswerEqualsTheJoinedStream) {
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::GenerateRequest request = Request("m", 60);
  request.mutable_stop()->add_strings("stu");
  request.set_n(3);
  grpc::ClientContext context;
  v1::GenerateUnaryResponse response;
  ASSERT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
  ASSERT_EQ(response.sequences_size(), 3);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(response.sequences(i).index(), i);
    EXPECT_EQ(response.sequences(i).text(), "nopqr");
    EXPECT_EQ(response.sequences(i).final().reason(), v1::FINISH_REASON_STOP_STRING);
    EXPECT_EQ(response.sequences(i).final().stop_string(), "stu");
  }
  request.set_n(1);
  std::string text;
  ASSERT_TRUE(Generate(request, text).ok());
  EXPECT_EQ(text, "nopqr");
}

TEST_F(InferenceServiceTest, ReturnsTokenIdsAndLogProbsOnlyWhenAsked) {
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::GenerateRequest request = Request("a", 3);
  for (const int logprobs : {-1, 0, 2}) {
    request.clear_logprobs();
    if (logprobs >= 0) request.set_logprobs(logprobs);
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    ASSERT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
    const v1::GenerateResponse& sequence = response.sequences(0);
    ASSERT_EQ(sequence.tokens_size(), logprobs >= 0 ? 3 : 0);
    if (logprobs < 0) continue;
    EXPECT_EQ(sequence.tokens(0).id(), 'b');
    EXPECT_LE(sequence.tokens(0).logprob(), 0);
    ASSERT_EQ(sequence.tokens(0).top_logprobs_size(), logprobs);
    if (logprobs > 0) {
      EXPECT_EQ(sequence.tokens(0).top_logprobs(0).bytes(), "b");
    }
  }
}

TEST_F(InferenceServiceTest, ChatAnswersBehindTheModelsOwnTemplate) {
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::ChatRequest request;
  request.mutable_sampling()->set_temperature(0);
  request.mutable_stop()->set_max_tokens(3);
  v1::ChatMessage& message = *request.add_messages();
  message.set_role("user");
  message.set_content("hi");
  grpc::ClientContext context;
  const auto reader = stub_->Chat(&context, request);
  v1::GenerateResponse piece;
  std::string text;
  int prompt_tokens = 0;
  while (reader->Read(&piece)) {
    text += piece.text();
    prompt_tokens = piece.final().usage().prompt_tokens();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "abc");  // the prompt ends with a line feed
  EXPECT_GT(prompt_tokens, 5);
}

TEST_F(InferenceServiceTest, TokenizeAndDetokenizeInvertEachOther) {
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::TokenizeRequest tokenize;
  tokenize.set_text("grüße, world \xF0\x9F\x8C\x8D");
  v1::TokenizeResponse ids;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, tokenize, &ids).ok());
  EXPECT_GT(ids.token_ids_size(), 5);
  v1::DetokenizeRequest detokenize;
  *detokenize.mutable_token_ids() = ids.token_ids();
  v1::DetokenizeResponse text;
  grpc::ClientContext second;
  ASSERT_TRUE(stub_->Detokenize(&second, detokenize, &text).ok());
  EXPECT_EQ(text.text(), tokenize.text());

  detokenize.add_token_ids(-3);
  grpc::ClientContext third;
  const grpc::Status status = stub_->Detokenize(&third, detokenize, &text);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids["));
}

TEST_F(InferenceServiceTest, AnswersThatWouldTakeTooMuchMemoryAreRefused) {
  stream_options_.max_unary_bytes = 1'000;
  stream_options_.max_unread_bytes = 100'000;
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::TokenizeRequest tokenize;
  tokenize.set_text("a");
  v1::TokenizeResponse ids;
  grpc::ClientContext first;
  ASSERT_TRUE(stub_->Tokenize(&first, tokenize, &ids).ok());
  const auto detokenize = [&](int count) {
    v1::DetokenizeRequest request;
    for (int i = 0; i < count; ++i) request.add_token_ids(ids.token_ids(0));
    v1::DetokenizeResponse text;
    grpc::ClientContext context;
    return stub_->Detokenize(&context, request, &text);
  };
  EXPECT_TRUE(detokenize(900).ok());
  const grpc::Status status = detokenize(1'001);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("token_ids: the text of the first 1001"));

  std::string text;
  for (int i = 0; i < 200'000; ++i) text += static_cast<char>('!' + i % 90);
  tokenize.set_text(text);
  grpc::ClientContext last;
  const grpc::Status refused = stub_->Tokenize(&last, tokenize, &ids);
  EXPECT_EQ(refused.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("send less at a time"));
}

TEST_F(InferenceServiceTest, RefusesWithRetryInfoBeforeParsingWhenTheQueueIsFull) {
  engine_options_.max_running = 1;
  engine_options_.max_waiting = 1;
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string first_text, second_text;
  std::future<grpc::Status> first, second;
  const HoldSteps hold(model_);
  first = std::async([&] { return Generate(Request("a", 4), first_text); });
  ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
  second = std::async([&] { return Generate(Request("a", 4), second_text); });
  ASSERT_TRUE(Eventually([&] { return !engine_->HasRoom(1); }));

  const grpc::Status status = SendGarbage("default");
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  v1::RpcStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  EXPECT_EQ(details.code(), static_cast<int>(StatusCode::RESOURCE_EXHAUSTED));
  ASSERT_EQ(details.details_size(), 1);
  EXPECT_EQ(details.details(0).type_url(), "type.googleapis.com/google.rpc.RetryInfo");
  v1::RetryInfo retry;
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_GT(retry.retry_delay().seconds() * 1'000'000'000 + retry.retry_delay().nanos(), 0);
  EXPECT_EQ(Rejected(Rejection::kQueueFull), 1u);

  model_.Release();
  EXPECT_TRUE(first.get().ok());
  EXPECT_TRUE(second.get().ok());
  EXPECT_EQ(first_text, "bcde");
  EXPECT_EQ(second_text, "bcde");
}

TEST_F(InferenceServiceTest, RefusesATenantOverItsShareOfTheQueueBeforeParsing) {
  engine_options_.max_running = 1;
  engine_options_.max_waiting = 2;
  ASSERT_NO_FATAL_FAILURE(Start());
  model_.SlowDown();
  std::array<grpc::ClientContext, 3> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (grpc::ClientContext& context : contexts) {
    context.AddMetadata("x-tenant-id", "a");
    readers.push_back(stub_->Generate(&context, Request("a", 4000)));
    ASSERT_TRUE(Eventually([&] { return engine_metrics().running.value() == 1; }));
  }
  ASSERT_TRUE(Eventually([&] { return !engine_->HasRoom(1); }));
  EXPECT_EQ(SendGarbage("b").error_code(), StatusCode::RESOURCE_EXHAUSTED);
  contexts.back().TryCancel();
  ASSERT_TRUE(Eventually([&] { return engine_->HasRoom(1); }));

  const grpc::Status status = SendGarbage("a");
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("the tenant's share of the queue is full"));
  EXPECT_FALSE(status.error_details().empty());
  EXPECT_EQ(SendGarbage("b").error_code(), StatusCode::INVALID_ARGUMENT);  // it was looked at
  EXPECT_EQ(Rejected(Rejection::kQueueFull), 2u);
  for (grpc::ClientContext& context : contexts) context.TryCancel();
  v1::GenerateResponse message;
  for (const auto& reader : readers) {
    while (reader->Read(&message)) {
    }
    EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  }
}

TEST_F(InferenceServiceTest, RefusesATenantIdThatNoConfigurationCouldName) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto call = [this](const std::vector<std::string>& tenants) {
    grpc::ClientContext context;
    for (const std::string& tenant : tenants) context.AddMetadata("x-tenant-id", tenant);
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, Request("a", 1), &response);
  };
  EXPECT_TRUE(call({std::string(64, '~')}).ok());
  EXPECT_TRUE(call({"Team-7/a.b:c@d"}).ok());
  EXPECT_EQ(call({"a tenant"}).error_message(),
            "x-tenant-id: byte 1 is 0x20; allowed is printable ASCII without space, comma and =");
  EXPECT_THAT(call({"gold=9"}).error_message(), HasSubstr("x-tenant-id: byte 4 is 0x3d; "));
  EXPECT_THAT(call({"a,b"}).error_message(), HasSubstr("x-tenant-id: byte 1 is 0x2c; "));
  const grpc::Status too_long = call({std::string(65, 'x')});
  EXPECT_EQ(too_long.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(too_long.error_message(), "x-tenant-id: 65 bytes, at most 64");
  EXPECT_EQ(call({"a", "b"}).error_message(), "x-tenant-id: 2 values, at most 1");
  EXPECT_THAT(call({""}).error_message(), HasSubstr("x-tenant-id: is empty"));
  EXPECT_EQ(engine_metrics().tenants.back().sequences.value(), 2u);
  EXPECT_EQ(Rejected(Rejection::kInvalid), 6u);
}

TEST_F(InferenceServiceTest, MaxQueueMsEndsAWaitingCallWithDeadlineExceeded) {
  engine_options_.max_running = 1;
  engine_options_.max_waiting = 1;
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string first_text, second_text;
  v1::GenerateRequest request = Request("a", 4);
  request.set_max_queue_ms(20);
  std::future<grpc::Status> first, second;
  {
    const HoldSteps hold(model_);
    first = std::async([&] { return Generate(Request("a", 4), first_text); });
    ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
    second = std::async([&] { return Generate(request, second_text); });
    ASSERT_TRUE(Eventually([&] { return !engine_->HasRoom(1); }));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  const grpc::Status status = second.get();
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(status.error_message(), HasSubstr("max_queue_ms"));
  request.set_max_queue_ms(0);
  EXPECT_EQ(Generate(request, second_text).error_message(),
            "max_queue_ms: 0 is not in [1, 86400000]");
  EXPECT_TRUE(first.get().ok());
}

TEST_F(InferenceServiceTest, RefusesAllSequencesOfARequestThatDoNotFitTheQueueTogether) {
  engine_options_.max_running = 1;
  engine_options_.max_waiting = 3;
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string first_text, second_text, text;
  std::future<grpc::Status> first, second;
  const HoldSteps hold(model_);
  first = std::async([&] { return Generate(Request("a", 4), first_text); });
  ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
  v1::GenerateRequest two = Request("a", 4);
  two.set_n(2);
  second = std::async([&] { return Generate(two, second_text); });
  ASSERT_TRUE(Eventually([&] { return !engine_->HasRoom(2); }));
  const grpc::Status status = Generate(two, text);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(status.error_details().empty());
  EXPECT_EQ(Rejected(Rejection::kQueueFull), 1u);
}

TEST_F(InferenceServiceTest, MoreSequencesThanTheQueueEverHoldsAreAnInvalidArgument) {
  engine_options_.max_waiting = 2;
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::GenerateRequest request = Request("a", 4);
  request.set_n(3);
  std::string text;
  const grpc::Status status = Generate(request, text);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(),
            "n: 3 sequences never fit the queue, which holds 2 (engine.max_waiting)");
  EXPECT_TRUE(status.error_details().empty());
  EXPECT_EQ(Rejected(Rejection::kInvalid), 1u);
}

TEST_F(InferenceServiceTest, ACancelledStreamFreesItsPagesAndIsCountedAsCancelled) {
  ASSERT_NO_FATAL_FAILURE(Start());
  model_.SlowDown();
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, Request("a", 4000));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  context.TryCancel();
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_TRUE(Eventually([&] { return Ended(Method::kGenerate, StatusCode::CANCELLED) == 1; }));
  EXPECT_TRUE(Eventually([&] { return engine_metrics().pages_used.value() == 0; }));
  EXPECT_EQ(engine_metrics().finished_cancelled.value(), 1u);
  EXPECT_TRUE(Eventually([&] { return metrics_.open_calls.value() == 0; }));
}

TEST_F(InferenceServiceTest, ACallWhoseDeadlinePassesInTheQueueEndsWithDeadlineExceeded) {
  engine_options_.max_running = 1;
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto ended = [&] {  // in the queue, not before it
    return Ended(Method::kGenerateUnary, StatusCode::DEADLINE_EXCEEDED) -
           Rejected(Rejection::kDeadline);
  };
  // On a busy machine a call may come so late that the server sees a client that cancels, or never
  // come: then there is another. With four prompts measured, one more could be refused at once.
  for (int attempt = 0; attempt < 4 && ended() == 0; ++attempt) {
    std::string text;
    std::future<grpc::Status> first;
    {
      const HoldSteps hold(model_);
      first = std::async([&] { return Generate(Request("a", 2), text); });
      ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
      grpc::ClientContext context;
      context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
      v1::GenerateUnaryResponse response;
      EXPECT_EQ(stub_->GenerateUnary(&context, Request("a", 2), &response).error_code(),
                StatusCode::DEADLINE_EXCEEDED);
      // The server's deadline is a little later than the client's: the time of the way is added.
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
    }
    EXPECT_TRUE(first.get().ok());
    ASSERT_TRUE(Eventually([&] { return metrics_.open_calls.value() == 0; }));
  }
  EXPECT_EQ(ended(), 1u);
}

TEST_F(InferenceServiceTest, ADeviceErrorEndsTheCallWithInternalAndLaterOnesWithUnavailable) {
  ASSERT_NO_FATAL_FAILURE(Start());
  model_.Break();
  std::string text;
  const grpc::Status status = Generate(Request("a", 4), text);
  EXPECT_EQ(status.error_code(), StatusCode::INTERNAL);
  EXPECT_THAT(status.error_message(), HasSubstr("the device is gone"));
  ASSERT_TRUE(Eventually([&] { return !engine_->health().ok(); }));
  EXPECT_EQ(Generate(Request("a", 4), text).error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(Rejected(Rejection::kFailed), 1u);
}

TEST_F(InferenceServiceTest, IsUnavailableUntilAModelIsServed) {
  ServerMetrics metrics;
  InferenceService service(metrics, {});
  auto server = GrpcServer::Start({.address = "127.0.0.1:0"}, service, metrics);
  ASSERT_TRUE(server.ok()) << server.status();
  const auto stub = v1::Inference::NewStub(
      grpc::CreateChannel((*server)->address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  const grpc::Status status = stub->GetModelInfo(&context, {}, &info);
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("loading"));
  (*server)->Stop(std::chrono::milliseconds(0));
}

TEST_F(InferenceServiceTest, DescribesTheModel) {
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  v1::GetModelInfoResponse info;
  ASSERT_TRUE(stub_->GetModelInfo(&context, {}, &info).ok());
  EXPECT_EQ(info.name(), "alphabet");
  EXPECT_EQ(info.vocabulary_size(), AlphabetModel::kVocabulary);
  EXPECT_EQ(info.context_tokens(), 4096);
  EXPECT_TRUE(info.has_chat_template());
  EXPECT_THAT(info.end_token_ids(), ::testing::Contains(kToyTurnEnd));
}

TEST_F(InferenceServiceTest, ChatNamesWhyAModelCannotDoIt) {
  ASSERT_NO_FATAL_FAILURE(Start());
  served_.chat_template = nullptr;
  served_.chat_template_error = absl::FailedPreconditionError("no template here");
  v1::ChatRequest request;
  grpc::ClientContext context;
  const auto reader = stub_->Chat(&context, request);
  const grpc::Status status = reader->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(), "no template here");
}

}  // namespace
}  // namespace asymserve::testing
