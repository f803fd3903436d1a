#include "server/live_config.h"

#include <gmock/gmock.h>
#include <signal.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "config/reference.h"
#include "tests/server/process_fixture.h"
#include "tests/support/file_io.h"

// The configuration read again while it serves.

namespace asymserve::testing {
namespace {

using grpc::StatusCode;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(LiveOptionsTest, AreThoseThatTheReferenceSaysAreReloadedAndNoOthers) {
  std::set<std::string> said, live;
  for (auto [key, comment] : ReferenceComments()) {
    std::replace(comment.begin(), comment.end(), '\n', ' ');
    if (comment.find("Reloaded on SIGHUP") != std::string::npos) said.insert(key);
  }
  for (const LiveOption& option : LiveOptions()) live.emplace(option.key);
  EXPECT_EQ(said, live);
  EXPECT_EQ(live.size(), LiveOptions().size());
}

class LiveConfigTest : public ProcessFixture {
 protected:
  static constexpr char kOk[] = "asymserve_reloads_total{what=\"config\",result=\"ok\"}";
  static constexpr char kError[] = "asymserve_reloads_total{what=\"config\",result=\"error\"}";

  void StartWith(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
    WriteFile(path_, yaml);
    std::vector<std::string> arguments = {"--config", path_,
                                          "--model",  model_path_,
                                          "--set",    "engine.threads=1",
                                          "--set",    "engine.kv_memory_bytes=64MiB"};
    for (const std::string& override : overrides) {
      arguments.emplace_back("--set");
      arguments.push_back(override);
    }
    server_ = std::make_unique<ServerProcess>(arguments);
    ASSERT_TRUE(server_->WaitUntilServing()) << server_->log();
    stub_ = server_->Stub();
  }

  /// Writes the file, and returns the metrics once it was read again.
  std::map<std::string, double> Reload(const std::string& yaml) {
    WriteFile(path_, yaml);
    return Reload();
  }
  std::map<std::string, double> Reload() {
    auto metrics = server_->Metrics();
    const double before = metrics.at(kOk) + metrics.at(kError);
    server_->Signal(SIGHUP);
    EXPECT_TRUE(Eventually([&] {
      metrics = server_->Metrics();
      return metrics.at(kOk) + metrics.at(kError) > before;
    }));
    return metrics;
  }

  const std::string path_ = directory_.Path("asymserve.yaml");
};

TEST_F(LiveConfigTest, SighupAppliesWhatCanChangeAndNamesWhatNeedsARestart) {
  ASSERT_NO_FATAL_FAILURE(StartWith("kv: {scheme: fit-2/2}\nmodel: {name: toy}\n"));
  EXPECT_EQ(server_->Metrics().at(kOk), 0);
  const auto metrics = Reload(
      "kv: {scheme: fit-2/2, quality: {canary_rate: 0.5}}\n"
      "model: {name: toy}\n"
      "engine: {max_waiting: 7, max_running: 32, step_ms: 40}\n"
      "scheduling: {tenants: gold=4, aging_seconds: 1}\n"
      "server: {drain_seconds: 33, stream_queue_messages: 9}\n");
  EXPECT_EQ(metrics.at(kOk), 1);
  EXPECT_EQ(metrics.at(kError), 0);
  EXPECT_EQ(metrics.at("asymserve_kv_canary_rate{model=\"toy\",scheme=\"fit-2/2\"}"), 0.5);
  EXPECT_EQ(metrics.at("asymserve_drain_budget_seconds"), 33);
  EXPECT_TRUE(
      server_->WaitForLog("info config_changed options=\"engine.max_waiting: 256 -> 7, "
                          "engine.step_ms: 80 -> 40, kv.quality.canary_rate: 0.001 -> 0.5, "
                          "scheduling.tenants: \\\"\\\" -> gold=4, "
                          "server.stream_queue_messages: 256 -> 9, "
                          "server.drain_seconds: 20 -> 33\""));
  EXPECT_TRUE(
      server_->WaitForLog("warn needs_restart options=\"engine.max_running: 64 -> 32, "
                          "scheduling.aging_seconds: 10 -> 1\""));
  v1::GenerateRequest request = Request("too many for the new queue", 1);
  request.set_n(8);
  const grpc::Status status = Unary(request);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("the queue, which holds 7"));
}

TEST_F(LiveConfigTest, TheQueueBeyondWhatMemoryWasPlannedForNeedsARestart) {
  ASSERT_NO_FATAL_FAILURE(StartWith("engine: {max_waiting: 8}\n"));
  Reload("engine: {max_waiting: 9}\n");
  EXPECT_TRUE(server_->WaitForLog("warn needs_restart options=\"engine.max_waiting: 8 -> 9\""));
  EXPECT_THAT(server_->log(), Not(HasSubstr("config_changed")));
  v1::GenerateRequest request = Request("too many", 1);
  request.set_n(9);
  EXPECT_THAT(Unary(request).error_message(), HasSubstr("the queue, which holds 8"));
}

TEST_F(LiveConfigTest, ABrokenFileKeepsTheOldConfigurationAndIsReadNoMoreUntilAsked) {
  ASSERT_NO_FATAL_FAILURE(StartWith("server: {drain_seconds: 30}\n"));
  Reload("server:\n  drain_seconds: 31\n  drain_secunds: 32\n");
  EXPECT_TRUE(server_->WaitForLog("error reload_failed what=config error=\"" + path_ +
                                  ":3: server.drain_secunds: unknown key, did you mean "
                                  "server.drain_seconds?\""));
  Reload("server:\n  drain_seconds: soon\n");
  EXPECT_TRUE(server_->WaitForLog(path_ + ":2: server.drain_seconds: expected a number"));
  Reload("server:\n  drain_seconds: 31\nengine:\n  step_tokens: 1\n");
  EXPECT_TRUE(server_->WaitForLog(path_ + ":4: engine.step_tokens: expected at least"));
  std::filesystem::remove(path_);
  auto metrics = Reload();
  EXPECT_EQ(metrics.at(kError), 4);
  EXPECT_EQ(metrics.at(kOk), 0);
  EXPECT_EQ(metrics.at("asymserve_drain_budget_seconds"), 30);
  WriteFile(path_, "server: {drain_seconds: 31}\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  EXPECT_EQ(server_->Metrics().at("asymserve_drain_budget_seconds"), 30) << "nobody asked";
  metrics = Reload();
  EXPECT_EQ(metrics.at(kOk), 1);
  EXPECT_EQ(metrics.at("asymserve_drain_budget_seconds"), 31);
  EXPECT_TRUE(Unary(Request("it serves", 2)).ok());
}

TEST_F(LiveConfigTest, OverridesOfTheCommandLineKeepTheirPriority) {
  ASSERT_NO_FATAL_FAILURE(
      StartWith("server: {drain_seconds: 30}\n", {"server.drain_seconds=44", "log.level=info"}));
  const auto metrics = Reload("server: {drain_seconds: 55}\nlog: {level: 'off'}\n");
  EXPECT_EQ(metrics.at(kOk), 1);
  EXPECT_EQ(metrics.at("asymserve_drain_budget_seconds"), 44);
  EXPECT_TRUE(server_->WaitForLog("reloaded what=config"));
  EXPECT_THAT(server_->log(), Not(HasSubstr("config_changed")));
  EXPECT_THAT(server_->log(), Not(HasSubstr("needs_restart")));
}

TEST_F(LiveConfigTest, TheLogsLevelChangesWithTheNextLine) {
  ASSERT_NO_FATAL_FAILURE(StartWith("log: {level: info}\n"));
  Reload("log: {level: error}\n");
  ASSERT_TRUE(Unary(Request("silent", 3)).ok());
  Reload("log: {level: info}\n");
  ASSERT_TRUE(Unary(Request("logged", 4)).ok());
  ASSERT_TRUE(server_->WaitForLog("generated_tokens=4"));
  EXPECT_THAT(server_->log(), Not(HasSubstr("generated_tokens=3")));
  EXPECT_TRUE(server_->WaitForLog("options=\"log.level: error -> info\""));
}

TEST_F(LiveConfigTest, TheNewBudgetIsThatOfTheDrain) {
  UseSlowModel();
  ASSERT_NO_FATAL_FAILURE(StartWith("server: {drain_seconds: 600}\n"));
  Reload("server: {drain_seconds: 0.1}\n");
  v1::GenerateRequest request = Request("endless", 4000);
  request.set_n(16);
  grpc::ClientContext context;
  const auto reader = stub_->Generate(&context, request);
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  server_->Signal(SIGTERM);
  while (reader->Read(&message)) {
  }
  EXPECT_FALSE(reader->Finish().ok());
  EXPECT_EQ(server_->WaitForExit(), 0);
  EXPECT_TRUE(server_->WaitForLog("draining budget_s=0.1"));
}

}  // namespace
}  // namespace asymserve::testing
