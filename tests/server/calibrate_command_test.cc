#include "server/calibrate_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kv/profile.h"
#include "server/calibration_mixture.h"
#include "server/quality_command.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using ::testing::HasSubstr;

constexpr char kStories[] = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";

class CalibrateCommandTest : public ::testing::Test {
 protected:
  CalibrateCommandTest() {
    std::ofstream text(folder_ / "text.txt");
    for (int i = 0; i < 400; ++i) {
      text << "One day, Lily went to the park and saw bird number " << i << ". She was happy. ";
    }
    arguments_.texts = {(folder_ / "text.txt").string()};
    arguments_.out_path = (folder_ / "profile").string();
    config_.model.path = kStories;
  }

  std::string ErrorOf(const CalibrateArguments& arguments) const {
    const auto options = ReadCalibrationOptions(arguments, config_);
    EXPECT_FALSE(options.ok());
    return std::string(options.status().message());
  }
  /// What takes seconds.
  CalibrationOptions SmallOptions() const {
    CalibrateArguments arguments = arguments_;
    arguments.budget = 2.0;
    auto options = ReadCalibrationOptions(arguments, config_);
    EXPECT_TRUE(options.ok()) << options.status();
    options->passage_tokens = 384;
    options->train_passages = 1;
    return *std::move(options);
  }
  static absl::StatusOr<std::unique_ptr<Backend>> MakeBackend(const EngineSection&) {
    return MakeCpuBackend({.threads = 2});
  }

  testing::TempDir directory_;
  const std::filesystem::path folder_ = directory_.path();
  CalibrateArguments arguments_;
  Config config_;
};

TEST_F(CalibrateCommandTest, BadInputIsRefusedByName) {
  CalibrateArguments bad = arguments_;
  bad.out_path = "/nowhere/profile";
  EXPECT_THAT(ErrorOf(bad), HasSubstr("out: /nowhere/profile: no folder"));
  for (const double budget : {9.0, 0.1, -1.0}) {
    bad = arguments_;
    bad.budget = budget;
    EXPECT_THAT(ErrorOf(bad), HasSubstr(" bits; must be 0.25 to 8"));
  }
  bad = arguments_;
  bad.max_kl = -0.5;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("max-kl: -0.5; must be positive"));
  bad.budget = 1;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("budget: excludes --max-kl"));
  bad = arguments_;
  bad.rounds = -1;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("rounds: -1"));
  bad = arguments_;
  bad.copy_weight = -1;
  EXPECT_THAT(ErrorOf(bad), HasSubstr("copy weight: -1"));
  bad = arguments_;
  bad.mixture = folder_.string();
  EXPECT_THAT(ErrorOf(bad), HasSubstr("mixture: excludes --text"));
}

TEST_F(CalibrateCommandTest, WithoutTextTheMixtureOfTheProjectIsRead) {
  CalibrateArguments arguments = arguments_;
  arguments.texts.clear();
  const auto options = ReadCalibrationOptions(arguments, config_);
  ASSERT_TRUE(options.ok()) << options.status();
  ASSERT_EQ(options->texts.size(), 5u);
  EXPECT_EQ(options->texts[2].name, "mathematics.jsonl");
  for (const TextSource& text : options->texts) {
    EXPECT_TRUE(ReadText(text).ok()) << text.path;
    EXPECT_THAT(text.path, HasSubstr("config/calibration/" + text.name));
  }
}

TEST_F(CalibrateCommandTest, AMixtureThatIsNotThereIsAnErrorThatSaysWhereItWasLookedFor) {
  const auto none = FindMixture({folder_ / "a", folder_ / "b"});
  EXPECT_THAT(std::string(none.status().message()),
              HasSubstr("text: none given, and no calibration mixture in " +
                        (folder_ / "a").string() + ", " + (folder_ / "b").string()));
  CalibrateArguments arguments = arguments_;
  arguments.texts.clear();
  arguments.mixture = folder_.string();
  EXPECT_THAT(ErrorOf(arguments), HasSubstr("mixture: cannot read"));
  std::ofstream(folder_ / "mixture.list") << "# texts\n\ntext.txt\nother.txt\n";
  EXPECT_THAT(ErrorOf(arguments), HasSubstr("mixture.list:4: there is no file other.txt"));
  std::ofstream(folder_ / "mixture.list") << "# texts\n";
  EXPECT_THAT(ErrorOf(arguments), HasSubstr("lists no text"));
}

TEST_F(CalibrateCommandTest, TextThatIsTooShortOrNoUtf8IsRefusedByName) {
  std::ostringstream out;
  auto options = ReadCalibrationOptions(arguments_, config_);
  ASSERT_TRUE(options.ok()) << options.status();
  options->passage_tokens = 384;
  options->train_passages = 1000;
  absl::Status status = RunCalibrate(*options, arguments_.out_path, {}, MakeBackend, out);
  EXPECT_THAT(std::string(status.message()), HasSubstr("text.txt"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("384768"));
  std::ofstream(folder_ / "text.txt") << "caf\xe9 au lait";
  options->train_passages = 1;
  status = RunCalibrate(*options, arguments_.out_path, {}, MakeBackend, out);
  EXPECT_THAT(std::string(status.message()), HasSubstr("text.txt: invalid UTF-8 at byte 3"));
  EXPECT_FALSE(std::filesystem::exists(arguments_.out_path));
}

TEST_F(CalibrateCommandTest, ADiskThatFillsKeepsTheOldProfile) {
  std::ofstream(arguments_.out_path) << "old";
  auto options = SmallOptions();
  // Files may not grow beyond this, as on a disk that is full.
  rlimit before = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit small = {.rlim_cur = 1000, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::ostringstream out;
  options.journal_path.clear();
  const absl::Status profile = RunCalibrate(options, arguments_.out_path, {}, MakeBackend, out);
  options.journal_path = arguments_.out_path + ".unfinished";
  const absl::Status journal = RunCalibrate(options, arguments_.out_path, {}, MakeBackend, out);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(std::string(profile.message()), HasSubstr("cannot write " + arguments_.out_path));
  EXPECT_THAT(std::string(journal.message()), HasSubstr(".unfinished"));
  std::stringstream kept;
  kept << std::ifstream(arguments_.out_path).rdbuf();
  EXPECT_EQ(kept.str(), "old");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
}

TEST_F(CalibrateCommandTest, AProfileOfARealModelIsWrittenReadAndMeasured) {
  const CalibrationOptions options = SmallOptions();
  std::ostringstream out;
  const absl::Status status = RunCalibrate(options, arguments_.out_path, {}, MakeBackend, out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(out.str(), HasSubstr("custom: "));
  EXPECT_FALSE(std::filesystem::exists(options.journal_path));
  const auto profile = ReadProfile(arguments_.out_path);
  ASSERT_TRUE(profile.ok()) << profile.status();
  ASSERT_EQ(profile->tiers.size(), 1u);

  QualityArguments quality;
  quality.schemes = {"exact", "custom"};
  quality.profile = arguments_.out_path;
  quality.texts = arguments_.texts;
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
