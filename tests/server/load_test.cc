#include <gmock/gmock.h>

#include <random>

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::AnyOf;

constexpr uint32_t kStreams = 64;
constexpr double kSlowReaders = 4;
constexpr uint32_t kSeed = 7;

enum class Behaviour { kReads, kCancels, kHasDeadline, kReadsNothing };

Behaviour BehaviourOf(uint32_t client) {
  if (client % 16 == 3) return Behaviour::kReadsNothing;
  if (client % 4 == 1) return Behaviour::kCancels;
  if (client % 4 == 2) return Behaviour::kHasDeadline;
  return Behaviour::kReads;
}

/// What one client saw.
struct Seen {
  StatusCode code = StatusCode::UNKNOWN;
  int64_t tokens = 0;
  int64_t reported_tokens = -1;  // by the final message
  std::string message;
};

class LoadTest : public ProcessFixture {
 protected:
  Seen RunClient(v1::Inference::Stub& stub, uint32_t client) {
    const Behaviour behaviour = BehaviourOf(client);
    std::mt19937 random(kSeed + client);
    const size_t prompt_bytes = 1 + random() % 200;
    const auto max_tokens = static_cast<int32_t>(1 + random() % 60);
    v1::GenerateRequest request = Request(std::string(prompt_bytes, 'k'), max_tokens);
    request.set_return_token_ids(true);
    if (behaviour != Behaviour::kReads) request.mutable_stop()->set_max_tokens(3500);
    if (behaviour == Behaviour::kReadsNothing) request.set_logprobs(20);
    grpc::ClientContext context;
    if (behaviour == Behaviour::kHasDeadline) {
      context.set_deadline(std::chrono::system_clock::now() +
                           std::chrono::milliseconds(random() % 400));
    }
    const auto reader = stub.Generate(&context, request);
    Seen seen;
    v1::GenerateResponse message;
    const auto read = [&] {
      if (!reader->Read(&message)) return false;
      seen.tokens += message.tokens_size();
      if (message.has_final()) seen.reported_tokens = message.final().usage().generated_tokens();
      return true;
    };
    if (behaviour == Behaviour::kCancels) {
      for (uint32_t messages = random() % 8; messages > 0 && read(); --messages) {
      }
      context.TryCancel();
    }
    if (behaviour == Behaviour::kReadsNothing) {
      reader->WaitForInitialMetadata();  // it runs; then it must end without a reader
      EXPECT_TRUE(Eventually([&] {
        auto metrics = server_->Metrics();
        return metrics["asymserve_sequences_running"] + metrics["asymserve_sequences_waiting"] == 0;
      }));
    }
    while (read()) {
    }
    const grpc::Status status = reader->Finish();
    seen.code = status.error_code();
    seen.message = status.error_message();
    return seen;
  }

  std::vector<Seen> RunAll() {
    std::vector<std::unique_ptr<v1::Inference::Stub>> stubs;  // eight streams to a connection
    for (uint32_t i = 0; i < kStreams / 8; ++i) stubs.push_back(server_->Stub());
    std::vector<Seen> seen(kStreams);
    std::vector<std::thread> clients;
    for (uint32_t i = 0; i < kStreams; ++i) {
      clients.emplace_back([&, i] { seen[i] = RunClient(*stubs[i % stubs.size()], i); });
    }
    for (std::thread& client : clients) client.join();
    return seen;
  }
};

TEST_F(LoadTest, SixtyFourStreamsWithCancelsDeadlinesAndSlowReadersLeaveNothingBehind) {
  SCOPED_TRACE(kSeed);
  ASSERT_NO_FATAL_FAILURE(Start({"server.stream_queue_messages=200", "engine.max_running=16"}));
  ASSERT_TRUE(Unary(Request("warm up", 4)).ok());
  const int threads = server_->threads();
  const int descriptors = server_->descriptors();
  const std::vector<Seen> seen = RunAll();

  int ok = 0;
  int64_t tokens = 0;
  for (uint32_t i = 0; i < kStreams; ++i) {
    const Seen& one = seen[i];
    SCOPED_TRACE(std::to_string(i) + ": " + one.message);
    if (one.code == StatusCode::OK) {
      ++ok;
      tokens += one.tokens;
      EXPECT_EQ(one.tokens, one.reported_tokens);
    }
    switch (BehaviourOf(i)) {
      case Behaviour::kReads:
        EXPECT_EQ(one.code, StatusCode::OK);
        break;
      case Behaviour::kCancels:
        EXPECT_EQ(one.code, StatusCode::CANCELLED);
        break;
      case Behaviour::kHasDeadline:
        // On a busy machine the toy model outruns a client that does read.
        EXPECT_THAT(one.code, AnyOf(StatusCode::DEADLINE_EXCEEDED, StatusCode::OK,
                                    StatusCode::RESOURCE_EXHAUSTED));
        break;
      case Behaviour::kReadsNothing:  // dropped, if it waited too long to see its status
        EXPECT_THAT(one.code, AnyOf(StatusCode::RESOURCE_EXHAUSTED, StatusCode::CANCELLED));
        break;
    }
  }

  EXPECT_TRUE(Eventually([&] { return server_->Metrics()["asymserve_open_calls"] == 0; }));
  auto metrics = server_->Metrics();  // in one scrape, requests are read before open calls
  EXPECT_EQ(metrics["asymserve_kv_pages{state=\"used\"}"], 0);
  EXPECT_EQ(metrics["asymserve_sequences_running"], 0);
  EXPECT_EQ(metrics["asymserve_sequences_waiting"], 0);
  const auto ended = [&](const std::string& code) {
    return metrics["asymserve_requests_total{method=\"Generate\",code=\"" + code + "\"}"];
  };
  // A stream may end well on the server in the moment in which its client gives up, and a client
  // may give up before the server has seen its call.
  EXPECT_GE(ended("OK"), ok);
  EXPECT_GE(ended("RESOURCE_EXHAUSTED"), kSlowReaders);
  EXPECT_EQ(ended("RESOURCE_EXHAUSTED"), metrics["asymserve_slow_readers_total"]);
  EXPECT_LE(ended("OK") + ended("CANCELLED") + ended("DEADLINE_EXCEEDED"), kStreams - kSlowReaders);
  EXPECT_GE(ended("OK") + ended("CANCELLED") + ended("DEADLINE_EXCEEDED"), ok);
  // The engine may have finished the sequence of a call that then ended otherwise.
  const double length = metrics["asymserve_sequences_finished_total{reason=\"length\"}"];
  EXPECT_GE(length, 1 + ended("OK"));
  EXPECT_LE(length, 1 + ended("OK") + ended("CANCELLED") + ended("DEADLINE_EXCEEDED") +
                        ended("RESOURCE_EXHAUSTED"));
  EXPECT_GE(metrics["asymserve_generated_tokens_total"], static_cast<double>(4 + tokens));
  EXPECT_TRUE(Eventually([&] { return server_->descriptors() <= descriptors; }))
      << server_->descriptors() << " descriptors, before " << descriptors;
  // gRPC's pools grow to a few threads per core and keep them; a thread per stream would be 64.
  EXPECT_TRUE(Eventually([&] { return server_->threads() <= threads + 16; }))
      << server_->threads() << " threads, before " << threads;
}

TEST_F(LoadTest, ADisconnectFreesThePages) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start());
  {
    const auto stub = server_->Stub();
    grpc::ClientContext context;
    const auto reader = stub->Generate(&context, Request("a", 4000));
    v1::GenerateResponse message;
    ASSERT_TRUE(reader->Read(&message));
    EXPECT_TRUE(
        Eventually([&] { return server_->Metrics()["asymserve_kv_pages{state=\"used\"}"] > 0; }));
  }  // the stream is dropped without a word
  EXPECT_TRUE(
      Eventually([&] { return server_->Metrics()["asymserve_kv_pages{state=\"used\"}"] == 0; }));
  EXPECT_TRUE(Eventually(
      [&] { return server_->Metrics()["asymserve_cancel_to_free_seconds_count"] == 1; }));
}

TEST_F(LoadTest, SixteenPromptsAnswerTheSameTogetherAsAlone) {
  ASSERT_NO_FATAL_FAILURE(Start({"engine.max_running=16"}));
  const auto generate = [&](int i) {
    v1::GenerateRequest request = Request(std::string(static_cast<size_t>(1 + 13 * i), 'p'), 40);
    request.mutable_sampling()->set_seed(static_cast<uint64_t>(i));
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    EXPECT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
    return response.sequences_size() == 1 ? response.sequences(0).text() : "no answer";
  };
  std::vector<std::string> together(16);
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&, i] { together[static_cast<size_t>(i)] = generate(i); });
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(together[static_cast<size_t>(i)], generate(i)) << "prompt " << i;
  }
}

}  // namespace
}  // namespace asymserve::testing
