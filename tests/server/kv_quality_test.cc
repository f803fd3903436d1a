// What `asymserve serve` does about the losses of a KV scheme, as a process.

#include <gmock/gmock.h>

#include <cstring>
#include <limits>

#include "config/config.h"
#include "engine/kv/profile.h"
#include "engine/kv/quality_gate.h"
#include "engine/quality/model_digest.h"
#include "tests/engine/kv/toy_profile.h"
#include "tests/server/process_fixture.h"
#include "tests/support/file_io.h"

namespace asymserve::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class KvQualityTest : public ProcessFixture {
 protected:
  /// A profile without learned codes for the toy model: tiers of fitted levels and their losses.
  KvProfile MakeProfile() const {
    const auto file = OpenWeightFile(model_path_);
    EXPECT_TRUE(file.ok()) << file.status();
    const ModelConfig& config = (*file)->config();
    KvProfile profile;
    profile.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
    profile.model_digest = *ModelDigest(**file);
    const auto items = size_t{2} * static_cast<size_t>(profile.shape.layers) *
                       static_cast<size_t>(profile.shape.kv_heads);
    profile.codes.resize(items);
    const auto tier = [&](const char* name, uint8_t bits, std::vector<KvLoss> losses) {
      profile.tiers.push_back(
          {.name = name,
           .sink_pages = 1,
           .recent_pages = 1,
           .items = std::vector<KvItem>(items, {.codec = KvCodec::kFitted, .bits = bits}),
           .losses = std::move(losses)});
    };
    tier("light", 4, {{"prose", 900, 0.0, 0.25}});
    tier("balanced", 2, {{"prose", 900, 0.0625, 0.25}, {"code", 800, 0.125, 0.5}});
    tier("dense", 1, {{"prose", 900, 0.5, 1.5}});
    tier("unmeasured", 2, {});
    return profile;
  }

  void WriteToyProfile() const {
    const absl::Status status = WriteProfile(MakeProfile(), model_path_ + ".asymkv");
    ASSERT_TRUE(status.ok()) << status;
  }

  /// Starts a server that must not serve; its log.
  std::string LogOfRefused(const std::vector<std::string>& options) const {
    std::vector<std::string> arguments = {"--model", model_path_,
                                          "--set",   "engine.kv_memory_bytes=64MiB",
                                          "--set",   "metrics.address="};
    for (const std::string& option : options) {
      arguments.emplace_back("--set");
      arguments.push_back(option);
    }
    ServerProcess server(arguments);
    EXPECT_EQ(server.WaitForExit(), 1);
    EXPECT_FALSE(server.WaitUntilServing());
    return server.log();
  }

  v1::GetModelInfoResponse Info() {
    grpc::ClientContext context;
    v1::GetModelInfoResponse info;
    const grpc::Status status = stub_->GetModelInfo(&context, {}, &info);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return info;
  }
};

TEST_F(KvQualityTest, ATierWithinTheDefaultLimitsIsServedAndItsLossesAreShown) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  ASSERT_NO_FATAL_FAILURE(Start());
  EXPECT_EQ(server_->LogValue("kv_cache", "tier"), "balanced");
  EXPECT_EQ(server_->LogValue("kv_cache", "mean_kl"), "0.125");
  EXPECT_EQ(server_->LogValue("kv_cache", "copy_loss"), "0.5");
  EXPECT_EQ(server_->LogValue("kv_cache", "self_check_kl"), "unknown");
  EXPECT_THAT(server_->log(), HasSubstr("kv_quality scheme=balanced text=prose mean_kl=0.0625"));
  EXPECT_THAT(server_->log(), Not(HasSubstr(" warn ")));

  const v1::GetModelInfoResponse info = Info();
  EXPECT_EQ(info.kv_scheme(), "balanced");
  EXPECT_EQ(info.kv_tier(), "balanced");
  EXPECT_EQ(info.kv_mean_kl(), 0.125);
  EXPECT_EQ(info.kv_copy_loss(), 0.5);
  EXPECT_EQ(info.kv_max_mean_kl(), 0.15);
  EXPECT_EQ(info.kv_max_copy_loss(), 0.75);
  EXPECT_FALSE(info.has_kv_self_check_kl());
  EXPECT_FALSE(info.kv_unfit_for_long_range());
  EXPECT_GT(info.kv_cache_tokens(), 2 * info.kv_cache_tokens_exact());
  EXPECT_EQ(info.kv_sequence_tokens(), kContext);
  EXPECT_GT(info.kv_sequences(), 2 * info.kv_sequences_exact());
  EXPECT_GT(info.kv_sequences_exact(), 0);

  std::map<std::string, double> metrics = server_->Metrics();
  EXPECT_EQ(metrics["asymserve_kv_info{scheme=\"balanced\",tier=\"balanced\"}"], 1);
  EXPECT_EQ(metrics["asymserve_kv_loss_estimate_nats{loss=\"mean_kl\"}"], 0.125);
  EXPECT_EQ(metrics["asymserve_kv_loss_estimate_nats{loss=\"copy\"}"], 0.5);
  EXPECT_EQ(metrics["asymserve_kv_loss_limit_nats{loss=\"mean_kl\"}"], 0.15);
  EXPECT_EQ(metrics["asymserve_kv_loss_limit_nats{loss=\"copy\"}"], 0.75);
  EXPECT_EQ(metrics.count("asymserve_kv_loss_estimate_nats{loss=\"self_check\"}"), 0u);
  EXPECT_DOUBLE_EQ(metrics["asymserve_kv_bytes_per_element{of=\"sealed\"}"] * 8,
                   info.kv_sealed_bits());
  EXPECT_DOUBLE_EQ(metrics["asymserve_kv_bytes_per_element{of=\"sequence\"}"] * 8,
                   info.kv_effective_bits());
  const auto count = [](int64_t value) { return static_cast<double>(value); };
  EXPECT_EQ(metrics["asymserve_kv_capacity_tokens{cache=\"served\"}"],
            count(info.kv_cache_tokens()));
  EXPECT_EQ(metrics["asymserve_kv_capacity_tokens{cache=\"exact\"}"],
            count(info.kv_cache_tokens_exact()));
  EXPECT_EQ(metrics["asymserve_kv_capacity_sequences{cache=\"served\",tokens=\"4096\"}"],
            count(info.kv_sequences()));
  EXPECT_EQ(metrics["asymserve_kv_capacity_sequences{cache=\"exact\",tokens=\"4096\"}"],
            count(info.kv_sequences_exact()));
}

TEST_F(KvQualityTest, TheDefaultTierOfTheShippedProfilePassesTheDefaultLimits) {
  const auto profile =
      ReadProfile(ASYMSERVE_SOURCE_DIR "/config/profiles/SmolLM2-135M-Instruct.Q4_1.asymkv");
  ASSERT_TRUE(profile.ok()) << profile.status();
  const KvQualitySection limits;
  const absl::Status status =
      CheckTierQuality(*profile, "balanced", {limits.max_mean_kl, limits.max_copy_loss});
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(KvQualityTest, ATierOverALimitIsRefusedWithTheTableAndNoOtherIsServed) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  const std::string log = LogOfRefused({"kv.quality.max_mean_kl=0.1"});
  for (const char* part : {
           "tier 'balanced' is refused: ",
           "mean KL 0.125 on 'code' is over kv.quality.max_mean_kl = 0.1.",
           "Name another one in kv.scheme, or change kv.quality.max_mean_kl",
           "error failed table=\"tier        sealed bits  worst mean KL  worst copy loss  passes\"",
           "error failed table=\"light              4.",
           "         0.0000           0.2500  yes\"",
           "error failed table=\"balanced           2.",
           "         0.1250           0.5000  no\"",
           "error failed table=\"dense              1.",
           "         0.5000           1.5000  no\"",
           "error failed table=\"unmeasured         2.",
           "   not measured     not measured  no\"",
           "error failed table=\"limit                           0.1000           0.7500\"",
       }) {
    EXPECT_THAT(log, HasSubstr(part));
  }
}

TEST_F(KvQualityTest, EachOfTheLimitsAndAMissingMeasurementRefuse) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  EXPECT_THAT(LogOfRefused({"kv.scheme=dense", "kv.quality.max_mean_kl=0"}),
              HasSubstr("tier 'dense' is refused: copy loss 1.5 on 'prose' is over "
                        "kv.quality.max_copy_loss = 0.75."));
  EXPECT_THAT(LogOfRefused({"kv.scheme=unmeasured", "kv.quality.max_mean_kl=0"}),
              HasSubstr("tier 'unmeasured' is refused: the profile has no measured losses of it"));
}

TEST_F(KvQualityTest, ATierThatHigherLimitsLetPassMayBeCalledUnfitForLongRangeReading) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  ASSERT_NO_FATAL_FAILURE(
      Start({"kv.scheme=dense", "kv.quality.max_mean_kl=0.5", "kv.quality.max_copy_loss=0"}));
  const v1::GetModelInfoResponse info = Info();
  EXPECT_EQ(info.kv_tier(), "dense");
  EXPECT_TRUE(info.kv_unfit_for_long_range());
  EXPECT_EQ(info.kv_max_copy_loss(), 0);
  EXPECT_THAT(server_->log(), HasSubstr("unfit for long-range reading"));
  EXPECT_EQ(server_->Metrics().count("asymserve_kv_loss_limit_nats{loss=\"copy\"}"), 0u);
}

TEST_F(KvQualityTest, WhatNobodyMeasuredIsServedWithAWarning) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  const std::pair<const char*, const char*> kSchemes[] = {{"kivi-2", ""},
                                                          {"unmeasured", "unmeasured"}};
  for (const auto& [scheme, tier] : kSchemes) {
    ASSERT_NO_FATAL_FAILURE(Start({std::string("kv.scheme=") + scheme, "kv.quality.max_mean_kl=0",
                                   "kv.quality.max_copy_loss=0"}));
    const std::string log = server_->log();
    const size_t warning = log.find(std::string(" warn kv_quality scheme=") + scheme);
    ASSERT_NE(warning, log.npos) << log;
    EXPECT_THAT(log.substr(warning), HasSubstr("asymserve quality"));
    EXPECT_EQ(log.find(" warn ", warning + 1), log.npos);
    const v1::GetModelInfoResponse info = Info();
    EXPECT_EQ(info.kv_scheme(), scheme);
    EXPECT_EQ(info.kv_tier(), tier);
    EXPECT_FALSE(info.has_kv_mean_kl());
    EXPECT_FALSE(info.has_kv_copy_loss());
    EXPECT_EQ(server_->Metrics().count("asymserve_kv_loss_estimate_nats{loss=\"mean_kl\"}"), 0u);
  }
}

TEST_F(KvQualityTest, ExactCostsNothingAndHoldsWhatExactHolds) {
  ASSERT_NO_FATAL_FAILURE(Start());  // auto, without a profile
  EXPECT_THAT(server_->log(), Not(HasSubstr(" warn ")));
  const v1::GetModelInfoResponse info = Info();
  EXPECT_EQ(info.kv_scheme(), "exact");
  EXPECT_EQ(info.kv_tier(), "");
  EXPECT_TRUE(info.has_kv_mean_kl());
  EXPECT_EQ(info.kv_mean_kl(), 0);
  EXPECT_EQ(info.kv_cache_tokens(), info.kv_cache_tokens_exact());
  EXPECT_EQ(info.kv_sequences(), info.kv_sequences_exact());
}

TEST_F(KvQualityTest, TheSelfCheckMeasuresAndRefusesByTheLimitOfTheMeanKl) {
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  const std::string check = "kv.quality.self_check=true";
  ASSERT_NO_FATAL_FAILURE(Start({check, "kv.scheme=fit-4/4"}));
  const double kl = Info().kv_self_check_kl();
  EXPECT_GT(kl, 0);
  EXPECT_NEAR(server_->Metrics()["asymserve_kv_loss_estimate_nats{loss=\"self_check\"}"], kl,
              1e-6 * kl);
  EXPECT_THAT(server_->log(), Not(HasSubstr(" warn ")));

  // The profile claims that light costs nothing.
  const std::string refused =
      LogOfRefused({check, "kv.scheme=light", "kv.quality.max_mean_kl=1e-12"});
  EXPECT_THAT(refused, HasSubstr("kv.quality.self_check: KV scheme 'light' is refused: mean KL"));
  EXPECT_THAT(refused, HasSubstr("error failed table=\"dense "));
  EXPECT_THAT(LogOfRefused({check, "kv.scheme=int8", "engine.context_tokens=1000"}),
              HasSubstr("kv.quality.self_check: needs 1536 tokens, the context has 1000"));
}

TEST_F(KvQualityTest, AProfileThatIsBadOrOfAnotherModelIsRefusedByItsFile) {
  const std::string path = directory_.Path("p.asymkv");
  const std::string good = *SerializeProfile(MakeProfile());
  std::string version = good.substr(0, good.size() - sizeof(Sha256Digest));
  version[8] = 9;
  KvProfile other_shape = ToyProfile();
  KvProfile other_weights = MakeProfile();
  other_weights.model_digest[0] ^= 1;
  std::string nan = good.substr(0, good.size() - sizeof(Sha256Digest));
  const double not_a_number = std::numeric_limits<double>::quiet_NaN();
  const double worst = 1.5;  // the copy loss of dense
  const size_t at = nan.rfind(std::string(reinterpret_cast<const char*>(&worst), sizeof(worst)));
  ASSERT_NE(at, nan.npos);
  std::memcpy(&nan[at], &not_a_number, sizeof(not_a_number));
  const struct {
    std::string bytes;
    const char* message;
  } kCases[] = {
      {good.substr(0, good.size() / 2), "its header says"},
      {good.substr(0, 10), "profile: "},
      {"", "p.asymkv is empty"},
      {"something else entirely", "does not begin with ASYMKVPF"},
      {SignProfile(version), "version 9, this program reads version 1"},
      {good.substr(0, good.size() - 1) + "x", "is damaged"},
      {SignProfile(nan), "tier 'dense': a loss of KL 0.5 and copy nan"},
      {*SerializeProfile(other_shape), "made for a model of 2 layers with 1 KV heads of 8"},
      {*SerializeProfile(other_weights), "made for other weights of this shape"},
  };
  for (const auto& one : kCases) {
    SCOPED_TRACE(one.message);
    WriteFile(path, one.bytes);
    const std::string log = LogOfRefused({"kv.profile=" + path});
    EXPECT_THAT(log, HasSubstr("p.asymkv"));
    EXPECT_THAT(log, HasSubstr(one.message));
  }
  EXPECT_THAT(LogOfRefused({"kv.profile=" + directory_.Path("none")}),
              HasSubstr(directory_.Path("none")));
}

TEST_F(KvQualityTest, ASchemeThatIsNoneIsRefusedWithWhatThereIs) {
  EXPECT_THAT(LogOfRefused({"kv.scheme=balanced"}),
              HasSubstr("kv.scheme: KV scheme 'balanced': unknown; there are exact, int8, kivi-2, "
                        "kivi-4, asymkv-<lk>/<lv>, fit-<k>/<v>, and the tiers of a profile, but no "
                        "profile was found"));
  EXPECT_THAT(LogOfRefused({"kv.scheme=asymkv-99/0"}),
              HasSubstr("kv.scheme: KV scheme 'asymkv-99/0': 99 layers of 2 bits; the model has"));
  EXPECT_THAT(LogOfRefused({"kv.scheme="}), HasSubstr("kv.scheme: KV scheme '': unknown"));
  ASSERT_NO_FATAL_FAILURE(WriteToyProfile());
  EXPECT_THAT(LogOfRefused({"kv.scheme=lite"}),
              HasSubstr("which are light, balanced, dense, unmeasured"));
  KvProfile without_default = MakeProfile();
  without_default.tiers.erase(without_default.tiers.begin() + 1);
  ASSERT_TRUE(WriteProfile(without_default, model_path_ + ".asymkv").ok());
  EXPECT_THAT(LogOfRefused({}), HasSubstr("kv.scheme: KV scheme 'balanced': unknown"));
}

}  // namespace
}  // namespace asymserve::testing
