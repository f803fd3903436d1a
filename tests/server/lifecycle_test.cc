#include <gmock/gmock.h>
#include <signal.h>

#include <fstream>
#include <future>

#include "asymserve/v1/rpc_status.pb.h"

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::Not;

class LifecycleTest : public ProcessFixture {
 protected:
  struct Answer {
    grpc::Status status;
    int tokens = 0;
  };
  /// Streams on a thread; returns once the first message is there.
  std::future<Answer> StartStream(int32_t max_tokens) {
    auto started = std::make_shared<std::promise<void>>();
    auto answer = std::async(std::launch::async, [this, started, max_tokens] {
      v1::GenerateRequest request = Request("stream", max_tokens);
      request.set_return_token_ids(true);
      grpc::ClientContext context;
      const auto reader = stub_->Generate(&context, request);
      Answer result;
      v1::GenerateResponse message;
      bool first = true;
      while (reader->Read(&message)) {
        result.tokens += message.tokens_size();
        if (first) started->set_value();
        first = false;
      }
      if (first) started->set_value();
      result.status = reader->Finish();
      return result;
    });
    started->get_future().wait();
    return answer;
  }
};

TEST_F(LifecycleTest, SigtermFinishesWhatRunsRefusesTheRestAndExitsWithZero) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(
      Start({"server.drain_seconds=60", "server.stream_queue_messages=1000000"}));
  auto running = StartStream(600);
  server_->Signal(SIGTERM);
  ASSERT_TRUE(server_->WaitForLog(" draining "));
  // The server refuses until it has stopped listening; both are UNAVAILABLE.
  EXPECT_TRUE(
      Eventually([&] { return Unary(Request("x", 1)).error_code() == StatusCode::UNAVAILABLE; }));
  const Answer answer = running.get();
  EXPECT_TRUE(answer.status.ok()) << answer.status.error_message();
  EXPECT_EQ(answer.tokens, 600);
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_THAT(server_->log(), HasSubstr("finished_all=true"));
}

TEST_F(LifecycleTest, TheDrainBudgetEndsWhatRunsTooLong) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"server.drain_seconds=0.05"}));
  v1::GenerateRequest request = Request("endless", 4000);
  request.set_n(8);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGINT);
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_EQ(server_->WaitForExit(), 0);
}

TEST_F(LifecycleTest, ASecondSignalExitsAtOnce) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"server.drain_seconds=600"}));
  v1::GenerateRequest request = Request("endless", 4000);
  request.set_n(16);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  ASSERT_TRUE(server_->WaitForLog(" draining "));
  server_->Signal(SIGTERM);
  EXPECT_EQ(server_->WaitForExit(), 128 + SIGTERM);
  context.TryCancel();
  (void)reader->Finish();
}

TEST_F(LifecycleTest, ASignalWhileTheModelLoadsEndsTheProcessAtOnce) {
  UseSlowModel();
  for (int attempt = 0; attempt < 10; ++attempt) {  // on a busy machine it may be loaded before
    server_ = std::make_unique<ServerProcess>(std::vector<std::string>{
        "--model", model_path_, "--set", "engine.threads=1", "--set", "kv.scheme=kivi-2", "--set",
        "kv.quality.self_check=true", "--set", "kv.quality.max_mean_kl=100"});
    ASSERT_TRUE(server_->WaitForLog(" listening ")) << server_->log();
    server_->Signal(SIGTERM);
    EXPECT_EQ(server_->WaitForExit(), 0);
    if (server_->log().find(" serving ") != std::string::npos) continue;
    EXPECT_THAT(server_->log(), HasSubstr("stopped served=false"));
    return;
  }
  FAIL() << "the model was loaded before every signal";
}

TEST_F(LifecycleTest, OverloadIsRefusedWithRetryInfo) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start(
      {"engine.max_running=1", "engine.max_waiting=1", "server.stream_queue_messages=1000000"}));
  auto running = StartStream(4000);
  grpc::ClientContext waiting;
  const auto reader = stub_->Generate(&waiting, Request("waits", 1));
  ASSERT_TRUE(Eventually([&] { return server_->Metrics()["asymserve_sequences_waiting"] == 1; }));
  const grpc::Status status = Unary(Request("a queue of one is full", 1));
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  v1::RpcStatus details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  v1::RetryInfo retry;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(retry.ParseFromString(details.details(0).value()));
  EXPECT_GT(retry.retry_delay().seconds() + retry.retry_delay().nanos(), 0);
  v1::GenerateResponse message;
  while (reader->Read(&message)) {
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(running.get().status.ok());
}

TEST_F(LifecycleTest, LogsOneLineForEachRequestAndNeverItsText) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_TRUE(Unary(Request("sesame-open", 5)).ok());
  ASSERT_TRUE(server_->WaitForLog(" request "));
  const std::string log = server_->log();
  for (const char* part : {"method=GenerateUnary", "code=OK", "finish=length", "generated_tokens=5",
                           "kv=scheme", "first_token_s=", "peer=ipv4:127.0.0.1"}) {
    EXPECT_THAT(log, HasSubstr(part));
  }
  EXPECT_THAT(log, Not(HasSubstr("sesame")));
}

TEST_F(LifecycleTest, NoTextIsInTheLogOrTheMetricsEvenAtLevelDebugOrOfABadRequest) {
  ASSERT_NO_FATAL_FAILURE(
      Start({"log.level=debug", "kv.scheme=fit-2/2", "kv.quality.canary_rate=1"}));
  const auto request = [] {
    v1::GenerateRequest made = Request("sesame-open", 12);
    (*made.mutable_sampling()->mutable_logit_bias())['Q'] = 100;  // the output
    made.mutable_stop()->add_strings("sesame-close");
    return made;
  };
  int lines = 0;
  const auto call = [&](StatusCode code, const auto& run) {
    grpc::ClientContext context;
    const grpc::Status status = run(context);
    EXPECT_EQ(status.error_code(), code) << status.error_message();
    ++lines;
  };
  const auto unary = [&](StatusCode code, const v1::GenerateRequest& made) {
    std::string text;
    call(code, [&](grpc::ClientContext& context) {
      v1::GenerateUnaryResponse response;
      const grpc::Status status = stub_->GenerateUnary(&context, made, &response);
      if (status.ok()) text = response.sequences(0).text();
      return status;
    });
    return text;
  };
  const auto stream = [&](StatusCode code, const auto& start) {
    std::string text;
    call(code, [&](grpc::ClientContext& context) {
      const std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>> reader = start(context);
      v1::GenerateResponse message;
      while (reader->Read(&message)) text += message.text();
      return reader->Finish();
    });
    return text;
  };
  const std::string output(12, 'Q');
  EXPECT_EQ(unary(StatusCode::OK, request()), output);
  const auto generate = [&](grpc::ClientContext& context) {
    return stub_->Generate(&context, request());
  };
  EXPECT_EQ(stream(StatusCode::OK, generate), output);
  v1::ChatRequest conversation;
  v1::ChatMessage& message = *conversation.add_messages();
  message.set_role("sesame-role");
  message.set_content("sesame-content");
  *conversation.mutable_sampling() = request().sampling();
  *conversation.mutable_stop() = request().stop();
  const auto chat = [&](grpc::ClientContext& context) {
    return stub_->Chat(&context, conversation);
  };
  EXPECT_EQ(stream(StatusCode::OK, chat), output);
  v1::TokenizeResponse tokens;
  call(StatusCode::OK, [&](grpc::ClientContext& context) {
    v1::TokenizeRequest made;
    made.set_text("sesame-tokens");
    return stub_->Tokenize(&context, made, &tokens);
  });
  call(StatusCode::OK, [&](grpc::ClientContext& context) {
    v1::DetokenizeRequest made;
    *made.mutable_token_ids() = tokens.token_ids();
    v1::DetokenizeResponse text;
    const grpc::Status status = stub_->Detokenize(&context, made, &text);
    EXPECT_EQ(text.text(), "sesame-tokens");
    return status;
  });
  v1::GenerateRequest bad = request();
  bad.set_n(0);
  unary(StatusCode::INVALID_ARGUMENT, bad);
  bad = request();
  bad.mutable_stop()->add_strings("sesame-" + std::string(300, 'x'));
  unary(StatusCode::INVALID_ARGUMENT, bad);
  bad = request();
  for (int i = 0; i < kContext; ++i) *bad.mutable_prompt() += "sesame";
  unary(StatusCode::INVALID_ARGUMENT, bad);
  conversation.add_messages()->set_content("sesame-without-role");
  stream(StatusCode::INVALID_ARGUMENT, chat);
  call(StatusCode::INVALID_ARGUMENT, [&](grpc::ClientContext& context) {
    context.AddMetadata("x-tenant-id", "sesame tenant");
    context.AddMetadata("traceparent", "00-sesame-trace");
    v1::GenerateUnaryResponse response;
    return stub_->GenerateUnary(&context, request(), &response);
  });

  EXPECT_TRUE(Eventually([&] {
    const std::string log = server_->log();
    int found = 0;
    for (size_t at = 0; (at = log.find(" request ", at)) != std::string::npos; ++at) ++found;
    return found == lines;
  })) << server_->log();
  EXPECT_TRUE(Eventually([&] {
    return server_->Metrics()["asymserve_generated_tokens_total"] == 36 &&
           server_->Metrics()["asymserve_open_calls"] == 0;
  }));
  for (const std::string& text : {server_->log(), server_->Scrape()}) {
    EXPECT_THAT(text, Not(HasSubstr("sesame")));
    EXPECT_THAT(text, Not(HasSubstr("QQ")));
  }
}

TEST_F(LifecycleTest, ATakenPortIsAnErrorThatNamesTheAddress) {
  ASSERT_NO_FATAL_FAILURE(Start());
  for (const auto& [option, address] :
       {std::pair{"server.address", server_->address()},
        std::pair{"metrics.address", server_->LogValue("metrics", "address")}}) {
    ServerProcess second({"--model", model_path_, "--set", std::string(option) + "=" + address});
    EXPECT_EQ(second.WaitForExit(), 1);
    EXPECT_TRUE(second.WaitForLog("cannot listen on " + address)) << second.log();
    EXPECT_THAT(second.log(), HasSubstr(option));
  }
}

TEST_F(LifecycleTest, ABrokenModelFileIsAnErrorThatNamesIt) {
  const std::string path = directory_.Path("broken.gguf");
  std::ofstream(path) << "GGUF but not really";
  ServerProcess server({"--model", path});
  EXPECT_EQ(server.WaitForExit(), 1);
  EXPECT_TRUE(server.WaitForLog("broken.gguf")) << server.log();
}

TEST_F(LifecycleTest, AContextThatTheModelWasNotTrainedForIsRefused) {
  ServerProcess server({"--model", model_path_, "--set", "engine.context_tokens=100000"});
  EXPECT_EQ(server.WaitForExit(), 1);
  EXPECT_TRUE(server.WaitForLog("engine.context_tokens: 100000 tokens; the model was trained for"))
      << server.log();
}

TEST_F(LifecycleTest, UsageErrorsExitWithTwo) {
  EXPECT_EQ(ServerProcess({"--set", "engine.treads=2"}).WaitForExit(), 2);
  EXPECT_EQ(ServerProcess({}).WaitForExit(), 2);  // no model
  EXPECT_EQ(ServerProcess({"--nonsense"}).WaitForExit(), 2);
  EXPECT_EQ(RunProgram({ASYMSERVE_BINARY}).status, 2);
}

TEST_F(LifecycleTest, TokenizeAndVersionNeedNoServer) {
  const Finished ids = RunProgram({ASYMSERVE_BINARY, "tokenize", "--model", model_path_, "xyz"});
  EXPECT_EQ(ids.status, 0) << ids.err;
  EXPECT_EQ(ids.out, "120 121 122\n");
  const Finished pieces =
      RunProgram({ASYMSERVE_BINARY, "tokenize", "--model", model_path_, "--pieces"}, "x\n");
  EXPECT_EQ(pieces.out, "120\tx\n10\t\\x0A\n") << pieces.err;
  const Finished version = RunProgram({ASYMSERVE_BINARY, "version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.out, ::testing::StartsWith("asymserve "));
}

}  // namespace
}  // namespace asymserve::testing
