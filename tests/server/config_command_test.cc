// `asymserve config` as a process.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "config/config.h"
#include "config/schema.h"
#include "config/yaml_text.h"
#include "tests/server/api_key_file.h"
#include "tests/server/server_process.h"
#include "tests/server/test_certificates.h"
#include "tests/support/file_io.h"
#include "tests/support/temp_dir.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kFailure = 1, kUsage = 2;
constexpr const char* kProfile =
    ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv";

class ConfigCommandTest : public ::testing::Test {
 protected:
  static Finished Run(const std::vector<std::string>& arguments) {
    std::vector<std::string> all = {ASYMSERVE_BINARY, "config"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    return RunProgram(all);
  }

  Finished Check(const std::string& yaml, const std::vector<std::string>& more = {}) {
    WriteFile(path_, yaml);
    std::vector<std::string> arguments = {"check", "--config", path_};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Run(arguments);
  }

  const TempDir directory_;
  const std::string path_ = directory_.Path("c.yaml");
  const std::string profile_ = std::string("kv:\n  profile: ") + kProfile + "\n";
};

TEST_F(ConfigCommandTest, CheckSaysThatAFileIsOkAndWhatItDidNotCheck) {
  const Finished run = Check("model: {path: /m.gguf}\n" + profile_);
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.err, "");
  EXPECT_EQ(run.out, path_ +
                         ": ok\nnot checked: the model, memory, the CPU's instruction set, the "
                         "addresses\n");
  const Finished bare = Check("log: {level: warn}\n");
  EXPECT_EQ(bare.status, 0) << bare.err;
  EXPECT_THAT(bare.out, StartsWith(path_ + ": ok\n"));
  EXPECT_THAT(bare.out, HasSubstr(", the profile and whether it has kv.scheme\n"));
  EXPECT_THAT(bare.out, HasSubstr("\nmodel.path: is empty; serve requires it (--model FILE)\n"));
  EXPECT_THAT(Run({"check"}).out, StartsWith("defaults: ok\n"));
}

TEST_F(ConfigCommandTest, CheckNamesFileLineKeyAndWhatWasExpected) {
  const struct {
    const char* yaml;
    const char* message;
  } cases[] = {
      {"engine:\n  treads: 3\n", ":2: engine.treads: unknown key, did you mean engine.threads?"},
      {"engine:\n  threads: x\n", ":2: engine.threads: expected an integer from 0 to 1024, got x"},
      {"\nserver: {drain_seconds: 1e9}\n",
       ":2: server.drain_seconds: expected a number from 0 to 3600, got 1e9"},
      {"log:\n  level: loud\n",
       ":2: log.level: expected one of debug, info, warn, error, off, got loud"},
      {"metrics:\n  address: 127.0.0.1:50051\n",
       ":2: metrics.address: expected another than server.address, got 127.0.0.1:50051"},
      {"server:\n  tls:\n    cert_file: c.pem\n",
       ":3: server.tls.key_file: is required with server.tls.cert_file"},
  };
  for (const auto& [yaml, message] : cases) {
    const Finished run = Check(yaml);
    EXPECT_EQ(run.status, kUsage) << yaml;
    EXPECT_EQ(run.err, "asymserve: " + path_ + message + "\n");
    EXPECT_EQ(run.out, "");
  }
  const Finished set = Check("", {"--set", "engine.treads=3"});
  EXPECT_EQ(set.status, kUsage);
  EXPECT_EQ(set.err,
            "asymserve: --set: engine.treads: unknown key, did you mean engine.threads?\n");
  const Finished missing = Run({"check", "--config", path_ + ".no"});
  EXPECT_EQ(missing.status, kUsage);
  EXPECT_EQ(missing.err, "asymserve: " + path_ + ".no: No such file or directory\n");
}

TEST_F(ConfigCommandTest, CheckReadsTheProfileUnlessToldThatItIsElsewhere) {
  const std::string yaml = "kv:\n  scheme: dense\n  profile: /no/such.asymkv\n";
  const Finished missing = Check(yaml);
  EXPECT_EQ(missing.status, kFailure);
  EXPECT_THAT(missing.err,
              StartsWith("asymserve: " + path_ + ":3: kv.profile: cannot open /no/such.asymkv"));
  EXPECT_EQ(missing.out, "");
  EXPECT_EQ(Check(yaml, {"--no-files"}).status, 0);
  EXPECT_EQ(Check(yaml, {"--set", std::string("kv.profile=") + kProfile}).status, 0);
  const std::string broken = directory_.Path("broken.asymkv");
  WriteFile(broken, ReadFile(kProfile).substr(0, 1000));
  const Finished cut = Check("", {"--set", "kv.profile=" + broken});
  EXPECT_EQ(cut.status, kFailure);
  EXPECT_THAT(cut.err, StartsWith("asymserve: --set: kv.profile: " + broken + ": "));
}

TEST_F(ConfigCommandTest, CheckReadsTheFilesOfTlsAndApiKeysUnlessToldThatTheyAreElsewhere) {
  const TestAuthority authority("authority");
  const TestIdentity identity = authority.Issue("server");
  const std::string certificate = directory_.Path("cert.pem"), key = directory_.Path("key.pem");
  const std::string keys = directory_.Path("keys.yaml");
  WriteFile(certificate, identity.certificate);
  WriteFile(key, identity.key);
  WriteFile(keys, KeyEntry("alice", "secret"));
  const std::string yaml = "server:\n  api_keys_file: " + keys +
                           "\n  tls:\n    cert_file: " + certificate + "\n    key_file: " + key +
                           "\n";
  const Finished good = Check(yaml);
  EXPECT_EQ(good.status, 0) << good.err;
  EXPECT_THAT(good.out, ::testing::Not(HasSubstr("server.tls")));
  WriteFile(keys, "alice:\n");
  const Finished no_digest = Check(yaml);
  EXPECT_EQ(no_digest.status, kFailure);
  EXPECT_EQ(no_digest.err, "asymserve: " + path_ + ":2: server.api_keys_file: " + keys +
                               ":1: alice: sha256 is missing\n");
  WriteFile(key, authority.Issue("another").key);
  const Finished mismatch = Check(yaml);
  EXPECT_EQ(mismatch.status, kFailure);
  EXPECT_EQ(mismatch.err, "asymserve: " + path_ + ":5: server.tls.key_file: " + key +
                              ": does not belong to the certificate in " + certificate + "\n");
  const Finished elsewhere = Check(yaml, {"--no-files"});
  EXPECT_EQ(elsewhere.status, 0);
  EXPECT_THAT(elsewhere.out,
              HasSubstr(", the files of tls and api_keys_file of server and admin\n"));
}

TEST_F(ConfigCommandTest, CheckReadsTheFilesOfTheAdminPortToo) {
  const std::string keys = directory_.Path("keys.yaml"), admin = directory_.Path("admin.yaml");
  WriteFile(keys, KeyEntry("alice", "secret"));
  WriteFile(admin, KeyEntry("olga", "secret"));
  const Finished both =
      Check("server:\n  api_keys_file: " + keys + "\nadmin:\n  api_keys_file: " + admin + "\n");
  EXPECT_EQ(both.status, kFailure);
  EXPECT_EQ(both.err, "asymserve: " + path_ + ":4: admin.api_keys_file: " + admin +
                          ": olga: its key is one of " + keys + ", too\n");
  const Finished none =
      Check("admin:\n  tls:\n    cert_file: /no/such.pem\n    key_file: /no/such.pem\n");
  EXPECT_EQ(none.status, kFailure);
  EXPECT_THAT(none.err, StartsWith("asymserve: " + path_ + ":3: admin.tls.cert_file: "));
}

TEST_F(ConfigCommandTest, CheckJudgesTheSchemeByTheProfileAndItsLimits) {
  EXPECT_EQ(Check(profile_, {"--set", "kv.scheme=kivi-2"}).status, 0);
  const Finished unknown = Check(profile_ + "  scheme: ballanced\n");
  EXPECT_EQ(unknown.status, kFailure);
  EXPECT_THAT(unknown.err, StartsWith("asymserve: " + path_ + ":3: kv.scheme: "));
  EXPECT_THAT(unknown.err, HasSubstr("light, balanced, dense"));
  const Finished lossy = Check(profile_ + "  quality: {max_mean_kl: 0.001}\n");  // auto: balanced
  EXPECT_EQ(lossy.status, kFailure);
  EXPECT_THAT(lossy.err, StartsWith("asymserve: " + path_ + ":3: kv.quality: tier 'balanced'"));
}

TEST_F(ConfigCommandTest, CheckRefusesASchemeThatNoProfileCouldHave) {
  const Finished run = Check("kv: {scheme: fit-3/2}\n");
  EXPECT_EQ(run.status, kFailure);
  EXPECT_THAT(run.err, StartsWith("asymserve: " + path_ + ":1: kv.scheme: KV scheme 'fit-3/2'"));
  for (const char* scheme : {"asymkv-30/0", "fit-1/4", "balanced", "exact", "auto"}) {
    EXPECT_EQ(Check(std::string("kv: {scheme: ") + scheme + "}\n").status, 0) << scheme;
  }
}

TEST_F(ConfigCommandTest, ShowPrintsWhatAServerWouldUseAndThatIsReadBack) {
  WriteFile(path_, "engine: {threads: 3, kv_memory_bytes: 1536MiB}\nlog: {level: off}\n");
  const Finished run = Run({"show", "--config", path_, "--set", "engine.threads=5", "--set",
                            "scheduling.tenants=a=2", "--model", "/a \"b\".gguf"});
  ASSERT_EQ(run.status, 0) << run.err;
  Config expected;
  expected.model.path = "/a \"b\".gguf";
  expected.engine.threads = 5;
  expected.engine.kv_memory_bytes = int64_t{1536} << 20;
  expected.scheduling.tenants = "a=2";
  expected.log.level = "off";
  EXPECT_EQ(ParseConfig(run.out, "show").value(), expected);
  WriteFile(path_, run.out);
  EXPECT_EQ(Run({"show", "--config", path_}).out, run.out);
  EXPECT_EQ(Run({"show"}).out, WriteYaml(Config()));
  EXPECT_EQ(Run({"show", "--set", "engine.threads=-1"}).status, kUsage);
}

TEST_F(ConfigCommandTest, SchemaPrintsOneJsonDocument) {
  const Finished run = Run({"schema"});
  EXPECT_EQ(run.status, 0) << run.err;
  EXPECT_EQ(run.out, ConfigSchema());
  EXPECT_EQ(nlohmann::json::parse(run.out)["title"], "AsymServe configuration");
}

TEST_F(ConfigCommandTest, ASubcommandIsRequired) {
  EXPECT_EQ(Run({}).status, kUsage);
  EXPECT_EQ(Run({"chekc"}).status, kUsage);
  EXPECT_EQ(Run({"schema", "--config", path_}).status, kUsage);
}

}  // namespace
}  // namespace asymserve::testing
