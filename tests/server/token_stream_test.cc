#include "server/token_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>

#include "grpc/health/v1/health.grpc.pb.h"

#include "tests/server/service_fixture.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;

class TokenStreamTest : public ServiceFixture {
 protected:
  /// A request whose stream is far larger than any flow-control window.
  static v1::GenerateRequest Flood() {
    v1::GenerateRequest request = Request("a", 4000);
    request.set_logprobs(20);
    request.set_n(4);
    return request;
  }
};

TEST_F(TokenStreamTest, ASlowReaderAloneIsCutOffWithResourceExhausted) {
  stream_options_.max_unread_deltas = 64;
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  const auto slow = stub_->Generate(&context, Flood());
  ASSERT_TRUE(Eventually([&] { return metrics_.slow_readers.value() == 1; }));
  std::string text;
  EXPECT_TRUE(Generate(Request("a", 50), text).ok());  // others are not disturbed
  EXPECT_EQ(text.size(), 50u);
  ASSERT_TRUE(Eventually([&] { return engine_metrics().pages_used.value() == 0; }));
  v1::GenerateResponse message;
  while (slow->Read(&message)) {
  }
  const grpc::Status status = slow->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("more than 256 messages"))
      << "64 for each of four sequences";
  EXPECT_EQ(Ended(Method::kGenerate, StatusCode::RESOURCE_EXHAUSTED), 1u);
}

TEST_F(TokenStreamTest, AReaderThatNeverReadsIsDroppedAfterTheGrace) {
  stream_options_.max_unread_deltas = 64;
  stream_options_.cut_off_grace = std::chrono::milliseconds(50);
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  const auto stuck = stub_->Generate(&context, Flood());
  EXPECT_TRUE(Eventually(
      [&] { return metrics_.slow_readers.value() == 1 && metrics_.open_calls.value() == 0; }));
  context.TryCancel();
  (void)stuck->Finish();
}

TEST_F(TokenStreamTest, TheEndOfAStreamThatNobodyReadsIsDroppedAfterTheTimeToReadIt) {
  stream_options_.max_unread_deltas = 1'000'000;
  stream_options_.read_time = std::chrono::milliseconds(50);
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  const auto stuck = stub_->Generate(&context, Flood());
  EXPECT_TRUE(Eventually([&] { return engine_metrics().generated_tokens.value() == 16'000; }));
  EXPECT_TRUE(Eventually([&] { return metrics_.open_calls.value() == 0; }));
  EXPECT_EQ(metrics_.slow_readers.value(), 0u);
  context.TryCancel();
  (void)stuck->Finish();
}

TEST_F(TokenStreamTest, AUnaryAnswerThatTakesTooMuchMemoryEndsAndNamesTheWayOut) {
  stream_options_.max_unary_bytes = 100'000;
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto call = [&](int32_t n) {
    v1::GenerateRequest request = Request("a", 100);
    request.set_logprobs(20);
    request.set_n(n);
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, request, &response);
  };
  EXPECT_TRUE(call(1).ok());
  const grpc::Status status = call(8);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), ::testing::HasSubstr("Generate, which streams"));
  EXPECT_TRUE(Eventually([&] { return engine_metrics().pages_used.value() == 0; }));
}

TEST_F(TokenStreamTest, AnotherLengthOfItsQueueCountsForTheNextStream) {
  stream_options_.max_unread_deltas = 1'000'000;
  ASSERT_NO_FATAL_FAILURE(Start());
  service_->SetStreamQueue(32);
  grpc::ClientContext context;
  const auto slow = stub_->Generate(&context, Flood());
  ASSERT_TRUE(Eventually([&] { return metrics_.slow_readers.value() == 1; }));
  v1::GenerateResponse message;
  while (slow->Read(&message)) {
  }
  EXPECT_THAT(slow->Finish().error_message(), ::testing::HasSubstr("more than 128 messages"));
}

TEST_F(TokenStreamTest, ALaggingReaderGetsTheSameTextInFewerMessages) {
  stream_options_.max_unread_deltas = 1'000'000;
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::GenerateRequest request = Request("z", 3000);
  request.set_logprobs(20);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  ASSERT_TRUE(Eventually([&] { return engine_metrics().finished_length.value() == 1; }));
  v1::GenerateResponse message;
  std::string text;
  int messages = 0;
  int tokens = 0;
  while (reader->Read(&message)) {
    text += message.text();
    tokens += message.tokens_size();
    ++messages;
  }
  ASSERT_TRUE(reader->Finish().ok());
  std::string expected;
  for (int i = 0; i < 3000; ++i) expected += static_cast<char>('a' + i % 26);
  EXPECT_EQ(text, expected);
  EXPECT_EQ(tokens, 3000);
  EXPECT_LT(messages, 3000);
}

TEST_F(TokenStreamTest, EverySequenceOfARequestGetsItsOwnTextAndFinal) {
  ASSERT_NO_FATAL_FAILURE(Start());
  v1::GenerateRequest request = Request("c", 40);
  request.set_n(5);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  std::vector<std::string> texts(5);
  std::vector<int> finals(5, 0);
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
    ASSERT_LT(message.index(), 5);
    texts[static_cast<size_t>(message.index())] += message.text();
    finals[static_cast<size_t>(message.index())] += message.has_final() ? 1 : 0;
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_THAT(texts, ::testing::Each(::testing::SizeIs(40)));
  EXPECT_THAT(finals, ::testing::Each(1));
}

using DrainTest = ServiceFixture;

TEST_F(DrainTest, RefusesNewWorkFinishesOldWorkAndTurnsNotServing) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string text;
  std::future<grpc::Status> running;
  std::future<bool> drained;
  const HoldSteps hold(model_);
  running = std::async([&] { return Generate(Request("a", 8), text); });
  ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
  drained =
      std::async([&] { return Drain(*server_, *service_, *engine_, std::chrono::seconds(60)); });
  const auto health = grpc::health::v1::Health::NewStub(channel_);
  const auto status_of = [&](const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    request.set_service(service);
    grpc::health::v1::HealthCheckResponse response;
    EXPECT_TRUE(health->Check(&context, request, &response).ok());
    return response.status();
  };
  EXPECT_TRUE(Eventually([&] {
    return status_of("asymserve.v1.Inference") ==
           grpc::health::v1::HealthCheckResponse::NOT_SERVING;
  }));
  EXPECT_EQ(status_of(""), grpc::health::v1::HealthCheckResponse::SERVING);
  std::string refused;
  ASSERT_TRUE(Eventually([&] {
    return Rejected(Rejection::kDraining) > 0 ||
           Generate(Request("a", 1), refused).error_code() == StatusCode::UNAVAILABLE;
  }));
  model_.Release();
  EXPECT_TRUE(running.get().ok());
  EXPECT_EQ(text, "bcdefghi");
  EXPECT_TRUE(drained.get());
}

TEST_F(DrainTest, WhatIsCutOffEndsUnavailableAndIsToldWhy) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string text;
  std::future<grpc::Status> stream, unary;
  const HoldSteps hold(model_);
  stream = std::async([&] { return Generate(Request("a", 4000), text); });
  unary = std::async([&] {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, Request("a", 4000), &response);
  });
  // The service knows of a call before the engine does.
  ASSERT_TRUE(Eventually(
      [&] { return engine_metrics().tenants.front().sequences.value() == 2 && model_.in_step(); }));
  service_->CutOff();
  model_.Release();
  for (std::future<grpc::Status>* call : {&stream, &unary}) {
    const grpc::Status status = call->get();
    EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), ::testing::HasSubstr("drain is over"));
  }
  EXPECT_EQ(Ended(Method::kGenerate, StatusCode::UNAVAILABLE), 1);
  EXPECT_EQ(Ended(Method::kGenerateUnary, StatusCode::UNAVAILABLE), 1);
}

TEST_F(DrainTest, AConnectionThatIsHungUpEndsItsCallsUnavailable) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string text;
  std::future<grpc::Status> running;
  const HoldSteps hold(model_);
  running = std::async([&] { return Generate(Request("a", 8), text); });
  ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
  server_->HangUp(std::chrono::milliseconds(100));  // the call keeps it open
  EXPECT_EQ(running.get().error_code(), StatusCode::UNAVAILABLE);
  std::string refused;
  EXPECT_EQ(Generate(Request("a", 1), refused).error_code(), StatusCode::UNAVAILABLE);
  model_.Release();
}

TEST_F(DrainTest, AStreamThatIsCutOffBeforeItsClientReadItIsNotFinished) {
  stream_options_.max_unread_deltas = 1'000'000;
  ASSERT_NO_FATAL_FAILURE(Start());
  grpc::ClientContext context;
  v1::GenerateRequest request = Request("a", 4000);
  request.set_logprobs(20);
  request.set_n(4);
  const auto stuck = stub_->Generate(&context, request);
  ASSERT_TRUE(Eventually([&] { return engine_metrics().generated_tokens.value() == 16'000; }));
  EXPECT_FALSE(Drain(*server_, *service_, *engine_, std::chrono::milliseconds(100)));
  (void)stuck->Finish();
}

TEST_F(DrainTest, CancelsWhatTheBudgetDoesNotCover) {
  ASSERT_NO_FATAL_FAILURE(Start());
  std::string text;
  std::future<grpc::Status> running;
  std::future<bool> drained;
  const HoldSteps hold(model_);
  running = std::async([&] { return Generate(Request("a", 4000), text); });
  ASSERT_TRUE(Eventually([&] { return model_.in_step(); }));
  drained = std::async(
      [&] { return Drain(*server_, *service_, *engine_, std::chrono::milliseconds(20)); });
  EXPECT_NE(running.get().error_code(), StatusCode::OK);
  model_.Release();
  EXPECT_FALSE(drained.get());
  EXPECT_TRUE(Eventually([&] { return metrics_.open_calls.value() == 0; }));
}

}  // namespace
}  // namespace asymserve::testing
