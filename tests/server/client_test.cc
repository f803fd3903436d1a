#include <gmock/gmock.h>
#include <signal.h>

#include <sstream>

#include "google/protobuf/util/json_util.h"

#include "tests/server/process_fixture.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;

class ClientTest : public ProcessFixture {
 protected:
  Finished Client(std::vector<std::string> arguments, const std::string& in = "") {
    arguments.insert(arguments.begin(), ASYMSERVE_CLIENT_BINARY);
    arguments.insert(arguments.end(), {"--address", server_->address()});
    return RunProgram(arguments, in);
  }

  /// What the messages of a --json stream say of tokens, joined.
  static std::string Tokens(const std::string& out) {
    std::string tokens;
    std::istringstream lines(out);
    for (std::string line; std::getline(lines, line);) {
      v1::GenerateResponse message;
      EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(line, &message).ok()) << line;
      for (const v1::Token& token : message.tokens()) tokens += token.ShortDebugString() + "\n";
    }
    return tokens;
  }

  std::string UnaryText(const v1::GenerateRequest& request) {
    grpc::ClientContext context;
    v1::GenerateUnaryResponse response;
    EXPECT_TRUE(stub_->GenerateUnary(&context, request, &response).ok());
    return response.sequences(0).text();
  }
};

TEST_F(ClientTest, CompletePrintsTheTextOfTheStream) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const std::string expected = UnaryText(Request("hello", 12)) + "\n";
  const std::vector<std::string> options = {"--max-tokens", "12", "--seed", "1", "--ignore-eos"};
  std::vector<std::string> arguments = {"complete", "hello", "--stats"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  const Finished given = Client(arguments);
  EXPECT_EQ(given.status, 0) << given.err;
  EXPECT_EQ(given.out, expected);
  EXPECT_THAT(given.err, HasSubstr("12 generated"));
  arguments = {"complete"};
  arguments.insert(arguments.end(), options.begin(), options.end());
  EXPECT_EQ(Client(arguments, "hello").out, expected);
}

TEST_F(ClientTest, TheTenantGoesToTheServerAndWhatGrpcCannotSendIsRefusedHere) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const auto complete = [this](const std::string& tenant) {
    return Client({"complete", "hello", "--max-tokens", "1", "--tenant", tenant});
  };
  EXPECT_EQ(complete("a.tenant").status, 0);
  EXPECT_THAT(complete("a tenant").err, HasSubstr("INVALID_ARGUMENT: x-tenant-id: byte 1 is 0x20"));
  EXPECT_THAT(complete(std::string(65, 'x')).err,
              HasSubstr("INVALID_ARGUMENT: x-tenant-id: 65 bytes, at most 64"));
  EXPECT_THAT(complete("\n").err, HasSubstr("--tenant: not printable ASCII"));
}

TEST_F(ClientTest, JsonIsOneObjectAMessageAndEndsWithTheFinal) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Finished result =
      Client({"complete", "hello", "--json", "--max-tokens", "4", "--ignore-eos"});
  EXPECT_EQ(result.status, 0) << result.err;
  EXPECT_THAT(result.out, ::testing::StartsWith("{"));
  EXPECT_THAT(result.out, HasSubstr("\"reason\":\"FINISH_REASON_LENGTH\""));
  EXPECT_THAT(result.out, HasSubstr("\"generated_tokens\":4"));
}

TEST_F(ClientTest, ChatAnswersOnceOrLineByLine) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Finished once = Client({"chat", "hi", "--system", "be brief", "--max-tokens", "3"});
  EXPECT_EQ(once.status, 0) << once.err;
  const Finished turns = Client({"chat", "--max-tokens", "3", "--stats"}, "one\ntwo\n");
  EXPECT_EQ(turns.status, 0) << turns.err;
  EXPECT_EQ(server_->Metrics()["asymserve_requests_total{method=\"Chat\",code=\"OK\"}"], 3);
}

TEST_F(ClientTest, ExactKvGivesTheTextOfAnExactServerAndIsLogged) {
  const std::string prompt(150, 'k');
  const std::vector<std::string> options = {
      prompt,          "--max-tokens", "200",    "--seed",     "1", "--stats",
      "--temperature", "0.9",          "--json", "--logprobs", "1", "--ignore-eos"};
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), options.begin(), options.end());
    const Finished result = Client(arguments);
    EXPECT_EQ(result.status, 0) << result.err;
    return Tokens(result.out);
  };
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=exact"}));
  const std::string exact = run({"complete"});
  ASSERT_NO_FATAL_FAILURE(Start({"kv.scheme=int8"}));
  EXPECT_EQ(run({"complete", "--exact-kv"}), exact);
  ASSERT_TRUE(server_->WaitForLog(" request "));
  EXPECT_EQ(server_->LogValue("request", "kv"), "exact");
  EXPECT_NE(run({"complete"}), exact);
  EXPECT_TRUE(server_->WaitForLog("kv=scheme"));
}

TEST_F(ClientTest, HealthAndInfoDescribeTheServer) {
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(Client({"health"}).out, "SERVING\n");
  const Finished unknown = Client({"health", "no.such.Service"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(unknown.err, ::testing::StartsWith("NOT_FOUND"));
  const Finished info = Client({"info"});
  EXPECT_EQ(info.status, 0);
  EXPECT_THAT(info.out, HasSubstr("\"vocabulary_size\": 288"));
}

TEST_F(ClientTest, ErrorsArePrintedWithCodeAndMessage) {
  ASSERT_NO_FATAL_FAILURE(Start());
  const Finished refused = Client({"complete", "x", "-n", "0"});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.err, HasSubstr("INVALID_ARGUMENT: n: 0"));
  EXPECT_EQ(Client({"complete", "x", "--nonsense"}).status, 2);
  server_->Signal(SIGKILL);
  ASSERT_EQ(server_->WaitForExit(), 128 + SIGKILL);
  EXPECT_THAT(Client({"complete", "x"}).err, ::testing::StartsWith("UNAVAILABLE"));
}

TEST_F(ClientTest, CtrlCCancelsTheCallOnTheServer) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start());
  const Finished result =
      RunProgram({ASYMSERVE_CLIENT_BINARY, "complete", "x", "-n", "16", "--max-tokens", "4000",
                  "--ignore-eos", "--address", server_->address()},
                 "", [&] { return server_->Metrics()["asymserve_generated_tokens_total"] > 0; });
  EXPECT_EQ(result.status, 130);
  EXPECT_EQ(result.err, "");
  EXPECT_TRUE(Eventually([&] {
    return server_->Metrics()["asymserve_requests_total{method=\"Generate\",code=\"CANCELLED\"}"] ==
           1;
  }));
  EXPECT_TRUE(
      Eventually([&] { return server_->Metrics()["asymserve_kv_pages{state=\"used\"}"] == 0; }));
}

}  // namespace
}  // namespace asymserve::testing
