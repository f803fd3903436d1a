#include "config/config_source.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace asymserve {
namespace {

std::string Message(const absl::Status& status) {
  return std::string(status.message());
}

class ConfigSourceTest : public ::testing::Test {
 protected:
  ConfigSourceTest()
      : path_(::testing::TempDir() + "asymserve_source_test_" +
              ::testing::UnitTest::GetInstance()->current_test_info()->name() + ".yaml") {}
  ~ConfigSourceTest() override { std::filesystem::remove(path_); }

  ConfigSource Source(const std::string& text, std::vector<std::string> overrides = {}) {
    std::ofstream(path_) << text;
    return {path_, std::move(overrides)};
  }

  /// The message of what is wrong with it, or "" if nothing is.
  static std::string Wrong(const ConfigSource& source) {
    const absl::StatusOr<Config> config = ReadSource(source);
    if (!config.ok()) return Message(config.status());
    return Message(CheckSource(source, *config));
  }

  const std::string path_;
};

TEST_F(ConfigSourceTest, TheLastOverrideWinsOverTheFile) {
  const auto config =
      ReadSource(Source("engine: {threads: 1}\n", {"engine.threads=2", "engine.threads=3"}));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->engine.threads, 3);
  EXPECT_EQ(Wrong(Source("engine: {threads: 1}\n")), "");
}

TEST_F(ConfigSourceTest, AValueThatDoesNotFitAnotherIsNamedWithItsLine) {
  constexpr char kSteps[] =
      "engine.step_tokens: expected at least engine.max_running (64), got 63; each running "
      "sequence decodes one token in a step";
  EXPECT_EQ(Wrong(Source("engine:\n  threads: 1\n  step_tokens: 63\n")), path_ + ":3: " + kSteps);
  EXPECT_EQ(Wrong(Source("engine:\n  step_tokens: 70\n", {"engine.step_tokens=63"})),
            std::string("--set: ") + kSteps);
  EXPECT_EQ(Wrong({"", {"engine.step_tokens=63"}}), std::string("--set: ") + kSteps);
  EXPECT_EQ(Wrong(Source("metrics:\n  address: 127.0.0.1:50051\n")),
            path_ +
                ":2: metrics.address: expected another than server.address, got "
                "127.0.0.1:50051");
}

TEST_F(ConfigSourceTest, WhereTheNamedOptionIsADefaultTheLineIsThatOfTheOther) {
  EXPECT_EQ(Wrong(Source("engine:\n  max_running: 600\n")),
            path_ +
                ":2: engine.step_tokens: expected at least engine.max_running (600), got 512; "
                "each running sequence decodes one token in a step");
}

TEST_F(ConfigSourceTest, ErrorsOfTheFileAndOfOverridesAreThoseOfTheirReaders) {
  EXPECT_EQ(Wrong(Source("engine:\n  treads: 1\n")),
            path_ + ":2: engine.treads: unknown key, did you mean engine.threads?");
  EXPECT_EQ(Wrong(Source("", {"engine.threads=x"})),
            "--set: engine.threads: expected an integer from 0 to 1024, got x");
}

TEST_F(ConfigSourceTest, AnOptionThatNobodySetsHasNoOrigin) {
  const ConfigSource source = Source("engine: {threads: 1}\n", {"kv.scheme=exact"});
  const auto origin = [&](std::vector<std::string_view> keys) { return FindOrigin(source, keys); };
  EXPECT_EQ(origin({"engine.step_ms"}), "");
  EXPECT_EQ(origin({"kv"}), "");
  EXPECT_EQ(origin({"engine.threads"}), path_ + ":1");
  EXPECT_EQ(origin({"kv.scheme"}), "--set");
  EXPECT_EQ(origin({"engine.step_ms", "kv.scheme", "engine.threads"}), "--set");
  std::filesystem::remove(path_);
  EXPECT_EQ(origin({"engine.threads"}), "");
}

}  // namespace
}  // namespace asymserve
