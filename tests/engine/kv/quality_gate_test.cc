#include "engine/kv/quality_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/engine/kv/toy_profile.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using ::testing::HasSubstr;
using testing::IsOk;
using ::testing::Not;
using testing::ToyProfile;

// Its tier balanced loses KL 0.032 and copy 0.33 on wikitext-2, 0.024 and 0.34 on gsm8k; its tier
// dense.v2 was not measured.

TEST(WorstLossTest, IsTheHighestOfEachLossOverAllTexts) {
  EXPECT_EQ(WorstLoss(ToyProfile().tiers[0].losses), (KvWorstLoss{0.032, 0.34}));
  EXPECT_FALSE(WorstLoss({}).has_value());
}

TEST(TierQualityTest, ATierPassesWhenNoLossOnAnyTextIsOverItsLimit) {
  const struct {
    KvQualityLimits limits;
    const char* refusal = nullptr;  // passes
  } kCases[] = {
      {{0, 0}, nullptr},
      {{0.032, 0.34}, nullptr},  // a limit is allowed itself
      {{0.15, 0.75}, nullptr},
      {{0.032, 0}, nullptr},
      {{0, 0.34}, nullptr},
      {{0.0319, 0}, "mean KL 0.032 on 'wikitext-2' is over kv.quality.max_mean_kl = 0.0319."},
      {{0, 0.339}, "copy loss 0.34 on 'gsm8k' is over kv.quality.max_copy_loss = 0.339."},
      {{0.03, 0.335},
       "mean KL 0.032 on 'wikitext-2' is over kv.quality.max_mean_kl = 0.03; copy loss 0.34 on "
       "'gsm8k' is over kv.quality.max_copy_loss = 0.335."},
      {{1e-9, 0}, "mean KL 0.024 on 'gsm8k' is over"},
  };
  for (const auto& one : kCases) {
    const absl::Status status = CheckTierQuality(ToyProfile(), "balanced", one.limits);
    SCOPED_TRACE(one.limits.max_mean_kl);
    if (one.refusal == nullptr) {
      EXPECT_THAT(status, IsOk());
    } else {
      EXPECT_THAT(status, FailsWith(StatusCode::kFailedPrecondition, one.refusal));
      EXPECT_THAT(status, FailsWith(StatusCode::kFailedPrecondition, "tier 'balanced' is refused"));
    }
  }
}

TEST(TierQualityTest, ATierThatWasNotMeasuredPassesOnlyWithoutLimits) {
  EXPECT_THAT(CheckTierQuality(ToyProfile(), "dense.v2", {}), IsOk());
  for (const KvQualityLimits& limits : {KvQualityLimits{100, 0}, KvQualityLimits{0, 100}}) {
    EXPECT_THAT(CheckTierQuality(ToyProfile(), "dense.v2", limits),
                FailsWith(StatusCode::kFailedPrecondition, "no measured losses"));
  }
}

TEST(TierQualityTest, ATierThatIsNotThereIsNotFound) {
  EXPECT_THAT(CheckTierQuality(ToyProfile(), "light", {}),
              FailsWith(StatusCode::kNotFound, "no tier 'light'; it has balanced, dense.v2"));
}

TEST(TierQualityTest, ARefusalSaysWhatToChangeAndShowsEveryTier) {
  const absl::Status status = CheckTierQuality(ToyProfile(), "balanced", {0.01, 0});
  const std::string message(status.message());
  for (const char* option : {"kv.scheme", "kv.quality.max_mean_kl", "kv.quality.max_copy_loss"}) {
    EXPECT_THAT(message, HasSubstr(option));
  }
  EXPECT_THAT(message, ::testing::EndsWith("\n" + TierTable(ToyProfile(), {0.01, 0})));
}

TEST(TierTableTest, HasBitsWorstLossesVerdictsAndTheLimits) {
  KvProfile profile = ToyProfile();
  profile.tiers.push_back(profile.tiers[0]);
  profile.tiers[2].name = "a-tier-with-a-long-name";
  profile.tiers[2].losses = {{"wikitext-2", 2048, 0.5, 1.25}};
  EXPECT_EQ(TierTable(profile, {0.15, 0}),
            "tier                     sealed bits  worst mean KL  worst copy loss  passes\n"
            "balanced                        4.36         0.0320           0.3400  yes\n"
            "dense.v2                        4.55   not measured     not measured  no\n"
            "a-tier-with-a-long-name         4.36         0.5000           1.2500  no\n"
            "limit                                        0.1500             none");
}

TEST(MeasuredKlTest, IsRefusedOverTheLimitWithTheTiersThatThereAre) {
  const KvProfile profile = ToyProfile();
  EXPECT_THAT(CheckMeasuredKl("kivi-2", 0.15, {0.15, 0}, nullptr), IsOk());
  EXPECT_THAT(CheckMeasuredKl("kivi-2", 9, {0, 0.75}, nullptr), IsOk());
  const absl::Status named = CheckMeasuredKl("kivi-2", 0.18, {0.15, 0}, nullptr);
  EXPECT_THAT(named, FailsWith(StatusCode::kFailedPrecondition,
                               "KV scheme 'kivi-2' is refused: mean KL 0.18 on the built-in text "
                               "is over kv.quality.max_mean_kl = 0.15"));
  EXPECT_THAT(std::string(named.message()), Not(HasSubstr("\n")));
  EXPECT_THAT(CheckMeasuredKl("balanced", 0.18, {0.15, 0}, &profile),
              FailsWith(StatusCode::kFailedPrecondition, TierTable(profile, {0.15, 0})));
}

}  // namespace
}  // namespace asymserve
