#include "server/calibrate_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kv/profile.h"
#include "server/quality_command.h"

namespace asymserve {
namespace {

using ::testing::HasSubstr;

constexpr char kStories[] = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";

class CalibrateCommandTest : public ::testing::Test {
 protected:
  CalibrateCommandTest() {
    folder_ = std::filesystem::path(::testing::TempDir()) / "calibrate_command_test";
    std::filesystem::create_directories(folder_);
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 400; ++i) {
      text << "One day, Lily went to the park and saw bird number " << i << ". She was happy. ";
    }
    arguments_.texts = {(folder_ / "text.txt").string()};
    arguments_.out_path = (folder_ / "profile").string();
    config_.model.path = kStories;
  }
  ~CalibrateCommandTest() override { std::filesystem::remove_all(folder_); }

  std::string ErrorOf(const CalibrateArguments& arguments) const {
    const auto options = ReadCalibrationOptions(arguments, config_);
    EXPECT_FALSE(options.ok());
    return std::string(options.status().message());
  }
  static absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const EngineSection&) {
    return MakeCpuBackend({.threads = 2});
  }

  std::filesystem::path folder_;
  CalibrateArguments arguments_;
  Config config_;
};

TEST_F(CalibrateCommandTest, BadInputIsRefusedByName) {
  CalibrateArguments bad = arguments_;
  bad.texts.clear();
  EXPECT_THAT(ErrorOf(bad), HasSubstr("text: none given"));
  bad = arguments_;
  bad.out_path = "/nowhere/profile";
  EXPECT_THAT(ErrorOf(bad), HasSubstr("out: /nowhere/profile: no folder"));
  bad = arguments_;
  bad.budget = 9;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("9 bits; must be 0.25 to 8"));
  bad = arguments_;
  bad.rounds = 0;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("rounds"));
}

TEST_F(CalibrateCommandTest, TextThatIsTooShortIsRefusedWithItsLength) {
  auto options = ReadCalibrationOptions(arguments_, config_);
  ASSERT_TRUE(options.ok()) << options.status();
  options->train_tokens = 1 << 20;
  std::ostringstream out;
  EXPECT_FALSE(RunCalibrate(*options, arguments_.out_path, {}, MakeBackend, out).ok());
  EXPECT_FALSE(std::filesystem::exists(arguments_.out_path));
}

TEST_F(CalibrateCommandTest, AProfileOfARealModelIsWrittenReadAndMeasured) {
  CalibrateArguments arguments = arguments_;
  arguments.budget = 2.0;
  auto options = ReadCalibrationOptions(arguments, config_);
  ASSERT_TRUE(options.ok()) << options.status();
  options->train_tokens = 512;
  options->search_tokens = 256;
  options->verify_tokens = 256;
  std::ostringstream out;
  const absl::Status status = RunCalibrate(*options, arguments.out_path, {}, MakeBackend, out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(out.str(), HasSubstr("custom: "));
  const auto profile = ReadProfile(arguments.out_path);
  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->tiers.size(), 1u);

  QualityArguments quality;
  quality.schemes = {"exact", "custom"};
  quality.profile = arguments.out_path;
  quality.texts = arguments.texts;
  quality.tokens = 512;
  const auto quality_options = ReadQualityOptions(quality, config_);
  ASSERT_TRUE(quality_options.ok()) << quality_options.status();
  std::ostringstream table;
  const absl::Status measured = RunQuality(*quality_options, {}, {}, MakeBackend, table);
  ASSERT_TRUE(measured.ok()) << measured;
  EXPECT_THAT(table.str(), HasSubstr("custom"));

  // Another model's weights are refused.
  config_.model.path = ASYMSERVE_MODEL_FILE;
  if (!std::filesystem::exists(config_.model.path)) return;
  const auto wrong = ReadQualityOptions(quality, config_);
  ASSERT_TRUE(wrong.ok()) << wrong.status();
  const absl::Status refused = RunQuality(*wrong, {}, {}, MakeBackend, table);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("made for a model of 5 layers"));
}

}  // namespace
}  // namespace asymserve
