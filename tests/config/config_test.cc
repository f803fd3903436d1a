#include "config/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

namespace asymserve {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

TEST(ConfigTest, AnEmptyPathAndAnEmptyFileGiveTheDefaults) {
  EXPECT_EQ(LoadConfig("").value(), Config());
  for (const char* text : {"", "# nothing\n", "engine:\n", "engine: {}\nlog: ~\n", "---\n...\n"}) {
    const auto config = ParseConfig(text, "f.yaml");
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(*config, Config()) << text;
  }
}

TEST(ConfigTest, ReadsAValueOfEachType) {
  const auto config = ParseConfig(
      "model: {path: /m/a b.gguf, name: 7}\n"
      "engine:\n  threads: 3\n  kv_memory_bytes: 512MiB\n  device: cuda\n  isa: avx2\n"
      "server:\n  drain_seconds: 0.5\n  reflection: false\n  tls: {cert_file: c.pem, key_file: "
      "k.pem}\n"
      "  max_message_bytes: '2MiB'\n"
      "metrics:\n  address: \"\"\n"
      "kv:\n  scheme: dense\n  quality: {max_mean_kl: 0.25, self_check: true}\n",
      "f.yaml");
  ASSERT_TRUE(config.ok()) << config.status();
  Config expected;
  expected.model = {.path = "/m/a b.gguf", .name = "7"};
  expected.engine.threads = 3;
  expected.engine.kv_memory_bytes = 512 << 20;
  expected.engine.device = "cuda";
  expected.engine.isa = "avx2";
  expected.server.drain_seconds = 0.5;
  expected.server.reflection = false;
  expected.server.tls.cert_file = "c.pem";
  expected.server.tls.key_file = "k.pem";
  expected.server.max_message_bytes = 2 << 20;
  expected.metrics.address = "";
  expected.kv.scheme = "dense";
  expected.kv.quality.max_mean_kl = 0.25;
  expected.kv.quality.self_check = true;
  EXPECT_EQ(*config, expected);
}

struct BrokenFile {
  const char* text;
  const char* message;
};

class BrokenConfigTest : public ::testing::TestWithParam<BrokenFile> {};

TEST_P(BrokenConfigTest, IsRefusedWithItsLineAndTheReason) {
  const auto config = ParseConfig(GetParam().text, "f.yaml");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Message(config.status()), GetParam().message);
}

INSTANTIATE_TEST_SUITE_P(
    UnknownKeys, BrokenConfigTest,
    ::testing::Values(
        BrokenFile{"engine:\n  treads: 3\n",
                   "f.yaml:2: engine.treads: unknown key, did you mean engine.threads?"},
        BrokenFile{"\n\nserver:\n  threads: 3\n",
                   "f.yaml:4: server.threads: unknown key, did you mean engine.threads?"},
        BrokenFile{"engine:\n  kv_memory: 1GiB\n",
                   "f.yaml:2: engine.kv_memory: unknown key, did you mean engine.kv_memory_bytes?"},
        BrokenFile{"threads: 3\n", "f.yaml:1: threads: unknown key, did you mean engine.threads?"},
        BrokenFile{"engin:\n  threads: 3\n", "f.yaml:1: engin: unknown key, did you mean engine?"},
        BrokenFile{"a: 1\n", "f.yaml:1: a: unknown key"},
        BrokenFile{"kv: {quality: {max_kl: 1}}\n",
                   "f.yaml:1: kv.quality.max_kl: unknown key, did you mean "
                   "kv.quality.max_mean_kl?"},
        BrokenFile{"kv: {qualty: {}}\n",
                   "f.yaml:1: kv.qualty: unknown key, did you mean kv.quality?"},
        BrokenFile{"kv: {max_mean_kl: 1}\n",
                   "f.yaml:1: kv.max_mean_kl: unknown key, did you mean kv.quality.max_mean_kl?"},
        BrokenFile{"engine: {xylophone_quality: 3}\n",
                   "f.yaml:1: engine.xylophone_quality: unknown key"},
        BrokenFile{"engine: {threads: {count: 3}}\n",
                   "f.yaml:1: engine.threads: expected an integer from 0 to 1024, got a section"},
        BrokenFile{"engine.threads: 3\n",
                   "f.yaml:1: \"engine.threads\": a key has no dots, write nested sections"},
        BrokenFile{"\"a\\nb\": 3\n", "f.yaml:1: a\\nb: unknown key"}));

INSTANTIATE_TEST_SUITE_P(
    WrongValues, BrokenConfigTest,
    ::testing::Values(
        BrokenFile{"engine:\n  threads: many\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got many"},
        BrokenFile{"engine:\n  threads: \"3\"\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got \"3\""},
        BrokenFile{"engine:\n  threads: 1.5\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got 1.5"},
        BrokenFile{"engine:\n  threads: 0x10\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got 0x10"},
        BrokenFile{"engine:\n  threads: -1\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got -1"},
        BrokenFile{"engine:\n  threads: 99999999999\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got 99999999999"},
        BrokenFile{"engine:\n  threads:\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got nothing"},
        BrokenFile{"engine:\n  threads: [1, 2]\n",
                   "f.yaml:2: engine.threads: expected an integer from 0 to 1024, got a list"},
        BrokenFile{"engine:\n  max_running: 0\n",
                   "f.yaml:2: engine.max_running: expected an integer from 1 to 4096, got 0"},
        BrokenFile{"engine:\n  kv_memory_bytes: 2GB\n",
                   "f.yaml:2: engine.kv_memory_bytes: expected a size from 0 to 64TiB, got 2GB"},
        BrokenFile{"server:\n  max_message_bytes: 1\n",
                   "f.yaml:2: server.max_message_bytes: expected a size from 1KiB to 1GiB, got 1"},
        BrokenFile{"server:\n  drain_seconds: .nan\n",
                   "f.yaml:2: server.drain_seconds: expected a number from 0 to 3600, got .nan"},
        BrokenFile{"server:\n  drain_seconds: nan\n",
                   "f.yaml:2: server.drain_seconds: expected a number from 0 to 3600, got nan"},
        BrokenFile{"server:\n  reflection: yes\n",
                   "f.yaml:2: server.reflection: expected true or false, got yes"},
        BrokenFile{"server:\n  address: localhost\n",
                   "f.yaml:2: server.address: expected HOST:PORT, got localhost"},
        BrokenFile{"server:\n  address: \"\"\n",
                   "f.yaml:2: server.address: expected HOST:PORT, got \"\""},
        BrokenFile{"metrics:\n  address: :9464\n",
                   "f.yaml:2: metrics.address: expected HOST:PORT, or \"\" for none, got :9464"},
        BrokenFile{"log: {level: loud}\n",
                   "f.yaml:1: log.level: expected one of debug, info, warn, error, off, got loud"},
        BrokenFile{"model:\n  path:\n", "f.yaml:2: model.path: expected text, got nothing"},
        BrokenFile{"kv:\n  quality: 0.1\n",
                   "f.yaml:2: kv.quality: expected a section of options, got 0.1"},
        BrokenFile{"kv:\n  quality:\n    max_mean_kl: -0.1\n",
                   "f.yaml:3: kv.quality.max_mean_kl: expected a number from 0 to 100, got -0.1"},
        BrokenFile{"kv: {quality: {max_copy_loss: .inf}}\n",
                   "f.yaml:1: kv.quality.max_copy_loss: expected a number from 0 to 100, got .inf"},
        BrokenFile{"kv: {quality: {self_check: 1}}\n",
                   "f.yaml:1: kv.quality.self_check: expected true or false, got 1"},
        BrokenFile{"log: text\n", "f.yaml:1: log: expected a section of options, got text"}));

INSTANTIATE_TEST_SUITE_P(
    WrongYaml, BrokenConfigTest,
    ::testing::Values(
        BrokenFile{"engine:\n  threads: 1\n  threads: 2\n",
                   "f.yaml:3: engine.threads: is there twice"},
        BrokenFile{"log: {}\nengine: {}\nlog: {}\n", "f.yaml:3: log: is there twice"},
        BrokenFile{"- a\n- b\n", "f.yaml:1: expected a map of sections, got a list"},
        BrokenFile{"hello\n", "f.yaml:1: expected a map of sections, got text"},
        BrokenFile{"log: {}\n---\nlog: {}\n", "f.yaml:2: expected one document, found another"},
        BrokenFile{"log: &a {}\n", "f.yaml:1: anchors (&name) are not supported"},
        BrokenFile{"log: {level: &a info}\n", "f.yaml:1: anchors (&name) are not supported"},
        BrokenFile{"engine: {threads: !!int 3}\n", "f.yaml:1: tags (!type) are not supported"},
        BrokenFile{"a: {b: {c: {d: {e: 1}}}}\n", "f.yaml:1: nested too deeply"},
        BrokenFile{"? [a]\n: b\n", "f.yaml:1: expected a key, got a list or a map"},
        BrokenFile{"~: b\n", "f.yaml:1: expected a key"}));

TEST(ConfigTest, TextThatIsNotYamlIsRefusedWithItsLine) {
  for (const char* text : {"log: {level: info\n", "log:\n  level: a: b\n", "log:\n\tlevel: info\n",
                           "log: [\n", "log: %\n"}) {
    const auto config = ParseConfig(text, "f.yaml");
    ASSERT_FALSE(config.ok()) << text;
    EXPECT_THAT(Message(config.status()), StartsWith("f.yaml:"));
    EXPECT_THAT(Message(config.status()), HasSubstr("not valid YAML"));
  }
}

TEST(ConfigTest, LoadNamesAFileThatIsMissingOrNoRegularFile) {
  const auto missing = LoadConfig("no/such.yaml");
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(missing.status()), StartsWith("no/such.yaml: "));
  EXPECT_THAT(Message(LoadConfig("/").status()), HasSubstr("not a regular file"));
  EXPECT_THAT(Message(LoadConfig("/dev/zero").status()), HasSubstr("not a regular file"));
}

TEST(ConfigTest, LoadReadsAFileAndRefusesOneThatIsTooLarge) {
  const std::string path = ::testing::TempDir() + "asymserve_config_test.yaml";
  std::ofstream(path) << "engine: {threads: 5}\n";
  const auto config = LoadConfig(path);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.threads, 5);
  std::ofstream(path) << std::string((1 << 20) + 1, '#');
  EXPECT_THAT(Message(LoadConfig(path).status()), HasSubstr("larger than 1048576 bytes"));
  std::filesystem::remove(path);
}

TEST(OverrideTest, SetsOneOptionAndNothingElse) {
  Config config;
  ASSERT_TRUE(ApplyOverride(config, "engine.kv_memory_bytes=2GiB").ok());
  ASSERT_TRUE(ApplyOverride(config, "model.path=/a=b c").ok());
  ASSERT_TRUE(ApplyOverride(config, "metrics.address=").ok());
  Config expected;
  expected.engine.kv_memory_bytes = int64_t{2} << 30;
  expected.model.path = "/a=b c";
  expected.metrics.address = "";
  EXPECT_EQ(config, expected);
}

TEST(OverrideTest, ARefusedOverrideChangesNothing) {
  const struct {
    const char* assignment;
    const char* message;
  } cases[] = {
      {"engine.treads=3", "--set: engine.treads: unknown key, did you mean engine.threads?"},
      {"engine.threads=x", "--set: engine.threads: expected an integer from 0 to 1024, got x"},
      {"engine.threads=", "--set: engine.threads: expected an integer from 0 to 1024, got "},
      {"engine.threads", "--set: expected KEY=VALUE, got \"engine.threads\""},
      {"engine=3", "--set: engine: expected a section of options, got 3"},
      {"=3", "--set: : unknown key"},
      {"", "--set: expected KEY=VALUE, got \"\""},
  };
  for (const auto& [assignment, message] : cases) {
    Config config;
    const absl::Status status = ApplyOverride(config, assignment);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(Message(status), message);
    EXPECT_EQ(config, Config());
  }
}

TEST(ValidateTest, TheDefaultsAreValid) {
  EXPECT_TRUE(ValidateConfig(Config()).ok());
}

TEST(ValidateTest, NamesTheOptionThatIsOutOfRange) {
  Config config;
  config.engine.max_waiting = 0;
  EXPECT_EQ(Message(ValidateConfig(config)),
            "engine.max_waiting: expected an integer from 1 to 1000000, got 0");
  config = Config();
  config.server.drain_seconds = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(Message(ValidateConfig(config)), StartsWith("server.drain_seconds: expected"));
  config = Config();
  config.kv.quality.max_copy_loss = 101;
  EXPECT_EQ(Message(ValidateConfig(config)),
            "kv.quality.max_copy_loss: expected a number from 0 to 100, got 101");
  config = Config();
  config.log.format = "xml";
  EXPECT_EQ(Message(ValidateConfig(config)), "log.format: expected one of text, json, got \"xml\"");
}

TEST(ValidateTest, TenantsAreNamesOnceWithWeights) {
  Config config;
  for (const char* tenants : {"", "gold=4", "gold=4,silver=10000,default=2"}) {
    config.scheduling.tenants = tenants;
    EXPECT_TRUE(ValidateConfig(config).ok()) << tenants;
  }
  for (const char* tenants : {"gold", "gold=", "=4", "gold=0", "gold=10001", "gold=1,", ",gold=1",
                              "gold=1,gold=2", "a b=1", "gold=1.5", "g\xC3\xB6ld=1"}) {
    config.scheduling.tenants = tenants;
    EXPECT_THAT(Message(ValidateConfig(config)),
                StartsWith("scheduling.tenants: expected up to 64 NAME=WEIGHT"))
        << tenants;
  }
}

TEST(ValidateTest, AStepMustHoldATokenOfEachRunningSequence) {
  Config config;
  config.engine.step_tokens = 63;
  EXPECT_THAT(Message(ValidateConfig(config)),
              StartsWith("engine.step_tokens: expected at least engine.max_running (64), got 63"));
  config.engine.step_tokens = 64;
  EXPECT_TRUE(ValidateConfig(config).ok());
}

TEST(ValidateTest, TheTwoEndpointsMustDifferUnlessTheirPortIsAnyFreeOne) {
  Config config;
  config.metrics.address = config.server.address;
  EXPECT_THAT(Message(ValidateConfig(config)), StartsWith("metrics.address: "));
  config.metrics.address = config.server.address = "127.0.0.1:0";
  EXPECT_TRUE(ValidateConfig(config).ok());
}

TEST(ValidateTest, TheAdminPortIsAnother) {
  Config config;
  config.admin.address = config.server.address;
  EXPECT_EQ(Message(ValidateConfig(config)),
            "admin.address: expected another than server.address, got 127.0.0.1:50051");
  config.admin.address = config.metrics.address;
  EXPECT_EQ(Message(ValidateConfig(config)),
            "admin.address: expected another than metrics.address, got 127.0.0.1:9464");
  config.admin.address = "127.0.0.1:50052";
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.metrics.address = config.admin.address = "";
  EXPECT_TRUE(ValidateConfig(config).ok());
}

TEST(ValidateTest, TheFileThatLetsCallersInLetsNoOperatorIn) {
  Config config;
  config.server.api_keys_file = config.admin.api_keys_file = "keys.yaml";
  EXPECT_EQ(Message(ValidateConfig(config)),
            "admin.api_keys_file: expected another than server.api_keys_file, got keys.yaml");
  config.admin.api_keys_file = "operators.yaml";
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.server.tls = {"cert.pem", "key.pem", "ca.pem"};
  config.admin.tls = config.server.tls;
  EXPECT_TRUE(ValidateConfig(config).ok()) << "keys tell operators from callers";
  config.admin.api_keys_file.clear();
  EXPECT_EQ(Message(ValidateConfig(config)),
            "admin.tls.client_ca_file: expected another than server.tls.client_ca_file, got ca.pem "
            "without admin.api_keys_file: every caller's certificate would be good");
  config.admin.tls.client_ca_file = "operators.pem";
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.admin.tls.key_file.clear();
  EXPECT_EQ(Message(ValidateConfig(config)),
            "admin.tls.key_file: is required with admin.tls.cert_file");
}

TEST(ValidateTest, ACertificateAndItsKeyComeTogetherAndClientAuthoritiesWithThem) {
  Config config;
  TlsSection& tls = config.server.tls;
  tls.client_ca_file = "ca.pem";
  EXPECT_EQ(Message(ValidateConfig(config)),
            "server.tls.cert_file: is required with server.tls.client_ca_file");
  tls.key_file = "key.pem";
  EXPECT_EQ(Message(ValidateConfig(config)),
            "server.tls.cert_file: is required with server.tls.key_file");
  tls.cert_file = "cert.pem";
  EXPECT_TRUE(ValidateConfig(config).ok());
  tls.key_file.clear();
  EXPECT_EQ(Message(ValidateConfig(config)),
            "server.tls.key_file: is required with server.tls.cert_file");
}

}  // namespace
}  // namespace asymserve
