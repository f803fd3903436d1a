// The load generator as a process, against a real server with a toy model.

#include <gmock/gmock.h>

#include <fstream>
#include <iterator>

#include "nlohmann/json.hpp"

#include "tests/server/api_key_file.h"
#include "tests/server/process_fixture.h"
#include "tests/server/test_certificates.h"
#include "tests/support/file_io.h"

namespace asymserve::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class LoadGeneratorTest : public ProcessFixture {
 protected:
  Finished Load(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {ASYMSERVE_BENCH_SERVE_BINARY, "--address", server_->address(),
                                    "--answers", answers_, "--json", json_, "--texts", "5",
                                    "--prompt", "8:24", "--output", "20:40", "--warmup-seconds",
                                    "0.2", "--tail-seconds", "0",
                                    // Nothing is late, however slow the machine is.
                                    "--first-token-seconds", "600"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all);
  }
  static std::string Read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  const std::string answers_ = directory_.Path("answers.json");
  const std::string json_ = directory_.Path("load.json");
};

TEST_F(LoadGeneratorTest, ItsSumsAreThoseOfTheServersMetrics) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(Start({"engine.max_running=2", "engine.max_waiting=3"}));
  const Finished first = Load({"--closed", "1", "--seconds", "0.1"});
  ASSERT_EQ(first.status, 0) << first.err;
  std::map<std::string, double> before = server_->Metrics();
  const Finished finished = Load({"--rate", "150", "--seconds", "1.5", "--max-queue-ms", "60000"});
  ASSERT_EQ(finished.status, 0) << finished.err;
  EXPECT_TRUE(Eventually([&] { return server_->Metrics()["asymserve_open_calls"] == 0; }));
  std::map<std::string, double> after = server_->Metrics();
  const auto moved = [&](const std::string& name) { return after[name] - before[name]; };

  const json result = json::parse(Read(json_), nullptr, false);
  ASSERT_TRUE(result.is_object()) << Read(json_);
  const json& all = result["all"];
  const json& outcomes = all["outcomes"];
  const double completed = outcomes["completed"], refused = outcomes["refused"];
  EXPECT_GT(completed, 0);
  EXPECT_GT(refused, 0);
  EXPECT_EQ(completed + refused, all["offered"]);
  EXPECT_EQ(completed, moved("asymserve_requests_total{method=\"Generate\",code=\"OK\"}"));
  EXPECT_EQ(refused, moved("asymserve_rejections_total{reason=\"queue_full\"}") +
                         moved("asymserve_rejections_total{reason=\"deadline\"}"));
  EXPECT_EQ(refused, moved("asymserve_refusal_seconds_count"));
  EXPECT_EQ(refused, all["refusal_seconds"]["count"]);
  EXPECT_EQ(all["generated_tokens"], moved("asymserve_generated_tokens_total"));
  EXPECT_EQ(all["prompt_tokens"], moved("asymserve_prompt_tokens_total"));
  EXPECT_EQ(all["wrong_texts"], 0);
  EXPECT_LT(result["measured"]["offered"], all["offered"]);  // without the warm-up
  EXPECT_EQ(after["asymserve_kv_pages{state=\"used\"}"], 0);
}

TEST_F(LoadGeneratorTest, ItLoadsAServerThatAsksForACertificateAndAKey) {
  const TestAuthority authority("authority");
  const TestIdentity server = authority.Issue("server"), me = authority.Issue("me");
  for (const auto& [name, text] :
       {std::pair{"ca.pem", authority.certificate()}, std::pair{"cert.pem", server.certificate},
        std::pair{"key.pem", server.key}, std::pair{"me.pem", me.certificate},
        std::pair{"me.key", me.key}, std::pair{"keys.yaml", KeyEntry("loader", "secret")}}) {
    WriteFile(directory_.Path(name), text);
  }
  ASSERT_NO_FATAL_FAILURE(Start({"server.tls.cert_file=" + directory_.Path("cert.pem"),
                                 "server.tls.key_file=" + directory_.Path("key.pem"),
                                 "server.tls.client_ca_file=" + directory_.Path("ca.pem"),
                                 "server.api_keys_file=" + directory_.Path("keys.yaml")}));
  std::vector<std::string> arguments = {"--closed",   "2",
                                        "--seconds",  "0.2",
                                        "--tls-ca",   directory_.Path("ca.pem"),
                                        "--tls-cert", directory_.Path("me.pem"),
                                        "--tls-key",  directory_.Path("me.key")};
  const Finished stranger = Load(arguments);
  EXPECT_EQ(stranger.status, 2);
  EXPECT_THAT(stranger.err, HasSubstr("key"));
  arguments.insert(arguments.end(), {"--api-key", "secret"});
  const Finished finished = Load(arguments);
  EXPECT_EQ(finished.status, 0) << finished.err;
  EXPECT_GT(server_->Metrics()["asymserve_requests_total{method=\"Generate\",code=\"OK\"}"], 0);
}

TEST_F(LoadGeneratorTest, ATextThatIsNotTheRightAnswerIsCountedAndFails) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_EQ(Load({"--closed", "1", "--seconds", "0.1"}).status, 0);
  json answers = json::parse(Read(answers_), nullptr, false);
  ASSERT_EQ(answers.size(), 5u);
  for (json& answer : answers) answer["answer"] = "another text";
  std::ofstream(answers_) << answers.dump();
  const Finished finished = Load({"--closed", "2", "--seconds", "0.3"});
  EXPECT_EQ(finished.status, 1);
  EXPECT_THAT(finished.err, HasSubstr("texts are not what the idle server answered"));
  const json result = json::parse(Read(json_), nullptr, false);
  EXPECT_EQ(result["all"]["wrong_texts"], result["all"]["outcomes"]["completed"]);
}

TEST_F(LoadGeneratorTest, AnswersToOtherPromptsAreRefusedWithTheirFile) {
  ASSERT_NO_FATAL_FAILURE(Start());
  ASSERT_EQ(Load({"--closed", "1", "--seconds", "0.1"}).status, 0);
  const Finished finished = Load({"--closed", "1", "--seconds", "0.1", "--seed", "2"});
  EXPECT_EQ(finished.status, 2);
  EXPECT_THAT(finished.err, HasSubstr(answers_ + ": the answers are to other prompts"));
}

}  // namespace
}  // namespace asymserve::testing
