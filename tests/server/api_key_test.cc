#include <gmock/gmock.h>
#include <signal.h>

#include <chrono>
#include <sstream>

#include "config/api_keys.h"
#include "tests/server/api_key_file.h"
#include "tests/server/process_fixture.h"

// API keys from the command that makes them to the server that asks for them.

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Finished MakeKey(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), {ASYMSERVE_BINARY, "api-key"});
  return RunProgram(arguments);
}

/// The second line of what goes to the terminal.
std::string SecretOf(const Finished& made) {
  const size_t begin = made.err.find('\n') + 1;
  return made.err.substr(begin, made.err.find('\n', begin) - begin);
}

class ApiKeyTest : public ProcessFixture {
 protected:
  std::string KeysOption(const std::string& entries) const {
    WriteFile(path_, entries);
    return "server.api_keys_file=" + path_;
  }
  Finished Info(const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {ASYMSERVE_CLIENT_BINARY, "info", "--address",
                                          server_->address()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return RunProgram(arguments);
  }
  int InfoStatus(const std::string& key) { return Info({"--api-key", key}).status; }

  const std::string path_ = directory_.Path("keys.yaml");
};

TEST_F(ApiKeyTest, AMadeKeyOpensTheServerAndIsNowhereButInItsHoldersHands) {
  const Finished alice = MakeKey({"alice", "--tenant", "it's"}), bob = MakeKey({"bob"});
  ASSERT_EQ(alice.status, 0) << alice.err;
  EXPECT_THAT(SecretOf(alice), ::testing::MatchesRegex("ask_[-_a-zA-Z0-9]+"));
  EXPECT_EQ(SecretOf(alice).size(), 4u + 43);
  EXPECT_THAT(alice.out, Not(HasSubstr(SecretOf(alice))));
  EXPECT_NE(SecretOf(alice), SecretOf(bob));
  const auto keys = ParseApiKeys(alice.out + bob.out, "output");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->front().tenant, "it's");

  ASSERT_NO_FATAL_FAILURE(Start({KeysOption(alice.out + bob.out)}));
  EXPECT_THAT(server_->log(), HasSubstr("api_keys=2"));
  EXPECT_EQ(InfoStatus(SecretOf(alice)), 0);
  EXPECT_EQ(InfoStatus(SecretOf(bob)), 0);
  EXPECT_THAT(Info({}).err, HasSubstr("UNAUTHENTICATED: an API key is required"));
  EXPECT_THAT(Info({"--api-key", "ask_guess"}).err, HasSubstr("UNAUTHENTICATED: API key: not"));
  EXPECT_EQ(RunProgram({ASYMSERVE_CLIENT_BINARY, "health", "--address", server_->address()}).out,
            "SERVING\n");
  ASSERT_TRUE(server_->WaitForLog("code=UNAUTHENTICATED"));
  EXPECT_THAT(server_->log(), HasSubstr("key=alice"));
  for (const std::string& secret : {SecretOf(alice), SecretOf(bob), std::string("ask_")}) {
    EXPECT_THAT(server_->log(), Not(HasSubstr(secret)));
  }
  EXPECT_EQ(server_->Metrics()["asymserve_rejections_total{reason=\"unknown_key\"}"], 1);
  EXPECT_EQ(server_->Metrics()["asymserve_rejections_total{reason=\"no_key\"}"], 1);
  EXPECT_EQ(server_->Metrics()["asymserve_api_keys"], 2);
}

TEST_F(ApiKeyTest, AKeyForSomeDaysSaysWhenItEndsAndTheMetricsSayWhenTheFirstDoes) {
  const auto now = std::chrono::duration_cast<std::chrono::seconds>(
      std::chrono::system_clock::now().time_since_epoch());
  const Finished month = MakeKey({"alice", "--days", "30"}), bob = MakeKey({"bob"});
  ASSERT_EQ(month.status, 0) << month.err;
  const auto keys = ParseApiKeys(month.out + bob.out, "output");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_NEAR(static_cast<double>(keys->front().not_after_s - now.count()), 30 * 86'400, 60);
  EXPECT_EQ(keys->back().not_after_s, 0);

  const std::string metric = "asymserve_api_key_not_after_seconds";
  ASSERT_NO_FATAL_FAILURE(Start({KeysOption(month.out + bob.out)}));
  EXPECT_EQ(InfoStatus(SecretOf(month)), 0);
  EXPECT_EQ(server_->Metrics()[metric], static_cast<double>(keys->front().not_after_s));
  ReplaceFile(path_, bob.out + KeyEntry("carol", "c", "expires: 2020-01-01T00:00:00Z"));
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=api_keys"));
  EXPECT_THAT(Info({"--api-key", "c"}).err, HasSubstr("UNAUTHENTICATED: API key: it has expired"));
  EXPECT_EQ(server_->Metrics()[metric], 1'577'836'800);
  EXPECT_EQ(server_->Metrics()["asymserve_rejections_total{reason=\"expired_key\"}"], 1);
  for (const char* days : {"0", "-1", "36501", "1.5", "soon"}) {
    EXPECT_EQ(MakeKey({"dave", "--days", days}).status, 2) << days;
  }
}

TEST_F(ApiKeyTest, TheClientTakesItsKeyFromTheEnvironment) {
  ASSERT_NO_FATAL_FAILURE(Start({KeysOption(KeyEntry("alice", "secret"))}));
  const auto info = [this](const std::string& key) {
    return RunProgram({"/usr/bin/env", "ASYMSERVE_API_KEY=" + key, ASYMSERVE_CLIENT_BINARY, "info",
                       "--address", server_->address()})
        .status;
  };
  EXPECT_EQ(info("secret"), 0);
  EXPECT_EQ(info("wrong"), 1);
}

TEST_F(ApiKeyTest, ANameOrTenantThatNoFileMayHaveIsAUsageError) {
  EXPECT_EQ(MakeKey({}).status, 2);
  for (const char* name : {"a b", "a.b", "-", "_", ""}) EXPECT_EQ(MakeKey({"--", name}).status, 2);
  const Finished result = MakeKey({"alice", "--tenant", "a=b"});
  EXPECT_EQ(result.status, 2);
  EXPECT_THAT(result.err, HasSubstr("--tenant: expected"));
  EXPECT_EQ(result.out, "");
}

TEST_F(ApiKeyTest, AChangedFileIsReadAgainAndABrokenOneKeepsTheKeys) {
  ASSERT_NO_FATAL_FAILURE(Start({KeysOption(KeyEntry("alice", "first"))}));
  EXPECT_EQ(InfoStatus("first"), 0);
  ReplaceFile(path_, KeyEntry("alice", "second") + "mallory:\n  sha256: ask_mallory\n");
  ASSERT_TRUE(server_->WaitForLog(" reload_failed what=api_keys"));
  EXPECT_THAT(server_->log(), HasSubstr(path_ + ":4: mallory.sha256: expected"));
  EXPECT_THAT(server_->log(), Not(HasSubstr("ask_mallory")));
  EXPECT_EQ(InfoStatus("first"), 0);
  EXPECT_EQ(InfoStatus("second"), 1);
  ReplaceFile(path_, KeyEntry("alice", "second"));
  ASSERT_TRUE(server_->WaitForLog(" reloaded what=api_keys"));
  EXPECT_EQ(InfoStatus("first"), 1);
  EXPECT_EQ(InfoStatus("second"), 0);
  auto metrics = server_->Metrics();
  EXPECT_EQ(metrics["asymserve_reloads_total{what=\"api_keys\",result=\"ok\"}"], 1);
  EXPECT_EQ(metrics["asymserve_reloads_total{what=\"api_keys\",result=\"error\"}"], 1);
}

TEST_F(ApiKeyTest, SighupReadsTheFile) {
  ASSERT_NO_FATAL_FAILURE(Start({KeysOption(KeyEntry("alice", "secret"))}));
  server_->Signal(SIGHUP);
  EXPECT_TRUE(server_->WaitForLog(" reloaded what=api_keys"));
  EXPECT_EQ(InfoStatus("secret"), 0);
}

TEST_F(ApiKeyTest, AFileThatCannotBeUsedEndsTheStartWithItsOptionAndName) {
  const auto error = [this](const std::string& option) {
    ServerProcess server({"--model", model_path_, "--set", option});
    EXPECT_EQ(server.WaitForExit(), 1);
    EXPECT_TRUE(server.WaitForLog(" failed "));
    return server.log();
  };
  EXPECT_THAT(error(KeysOption("")), HasSubstr("server.api_keys_file: " + path_ + ": has no keys"));
  EXPECT_THAT(error("server.api_keys_file=" + directory_.Path("none")),
              HasSubstr("server.api_keys_file: " + directory_.Path("none") + ": No such file"));
}

}  // namespace
}  // namespace asymserve::testing
