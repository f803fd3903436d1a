#include "engine/quality/calibration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/kv/layout.h"
#include "tests/support/file_io.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace asymserve {
namespace {

using testing::FailsWith;
using testing::IsOk;

/// Calibrates a trained model of 260 K parameters on little text.
class CalibrationTest : public ::testing::Test {
 protected:
  CalibrationTest() {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      text += "One day, Lily went to the park and saw bird number " + std::to_string(i * i) +
              ". She was happy. ";
    }
    testing::WriteFile(folder_.Path("text.txt"), text);
    options_.model_path = ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf";
    options_.texts = {{.name = "text.txt", .path = folder_.Path("text.txt"), .offset = 0}};
    options_.passage_tokens = 384;
    options_.train_passages = 1;
    options_.tiers = {{.name = "some", .bits = 2.0, .fresh_pages = 1},
                      {.name = "few", .bits = 1.0, .fresh_pages = 1}};
  }

  absl::StatusOr<KvProfile> Run(const CalibrationOptions& options, int32_t threads = 1,
                                const CalibrationProgress& progress = nullptr) {
    auto backend = MakeCpuBackend({.threads = threads});
    EXPECT_THAT(backend, IsOk());
    return Calibrate(**backend, options, progress);
  }

  static std::string Bytes(const absl::StatusOr<KvProfile>& profile) {
    EXPECT_THAT(profile, IsOk());
    if (!profile.ok()) return "";
    auto bytes = SerializeProfile(*profile);
    EXPECT_THAT(bytes, IsOk());
    return *std::move(bytes);
  }

  testing::TempDir folder_;
  CalibrationOptions options_;
};

TEST_F(CalibrationTest, TheProfileDoesNotDependOnThreads) {
  const std::string alone = Bytes(Run(options_, 1));
  options_.threads = 3;
  EXPECT_EQ(Bytes(Run(options_, 2)), alone);
  options_.search.seed = 2;
  EXPECT_NE(Bytes(Run(options_, 2)), alone);
}

TEST_F(CalibrationTest, TextsThatAProfileCouldNotTellApartAreRefused) {
  options_.texts.push_back({.name = "text.txt", .path = "/elsewhere/text.txt", .offset = 0});
  EXPECT_THAT(Run(options_).status(),
              testing::FailsWith(absl::StatusCode::kInvalidArgument, "two are named text.txt"));
  options_.texts.assign(65, options_.texts.front());
  EXPECT_THAT(Run(options_).status(),
              testing::FailsWith(absl::StatusCode::kInvalidArgument, "text: 65 given"));
}

TEST_F(CalibrationTest, AnInterruptedRunGoesOnToTheSameProfile) {
  const std::string whole = Bytes(Run(options_));
  options_.journal_path = folder_.Path("journal");
  // The journal as it is at each moment that progress is reported.
  std::vector<std::string> moments;
  EXPECT_EQ(Bytes(Run(options_, 1,
                      [&](const std::string&, double) {
                        if (std::filesystem::exists(options_.journal_path)) {
                          moments.push_back(testing::ReadFile(options_.journal_path));
                        }
                      })),
            whole);
  ASSERT_GE(moments.size(), 4u);
  for (size_t i = 0; i < moments.size(); i += 2) {
    testing::WriteFile(options_.journal_path, moments[i]);
    EXPECT_EQ(Bytes(Run(options_)), whole) << i;
  }
}

TEST_F(CalibrationTest, MoreBitsLoseLess) {
  const auto profile = Run(options_);
  ASSERT_THAT(profile, IsOk());
  ASSERT_EQ(profile->tiers.size(), 2u);
  EXPECT_LT(profile->tiers[0].losses[0].mean_kl, profile->tiers[1].losses[0].mean_kl);
}

TEST_F(CalibrationTest, TheCheapestTierWithinALimitIsFound) {
  options_.max_kl = 1e9;
  const auto cheap = Run(options_);
  ASSERT_THAT(cheap, IsOk());
  const auto scheme = TierScheme(*cheap, "some");
  ASSERT_THAT(scheme, IsOk());
  EXPECT_NEAR(KvLayout(cheap->shape, *scheme).sealed_bits(), 1.0,
              1e-9);  // two planes of 8 channels
  options_.max_kl = 1e-9;
  EXPECT_THAT(Run(options_),
              FailsWith(absl::StatusCode::kNotFound, "max-kl: 1e-09 is a budget no scheme meets"));
}

}  // namespace
}  // namespace asymserve
