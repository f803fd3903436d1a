#include "engine/quality/pseudo_decode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/backend/cpu/cpu_backend.h"
#include "engine/model/llama.h"
#include "tests/engine/quality/seal_interceptor.h"
#include "tests/support/kv_setup.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using absl::StatusCode;
using testing::FailsWith;
using testing::IsOk;

// Position -> logits.
using Logits = std::map<int32_t, std::vector<float>>;

/// A trained model of 260 K parameters on the CPU.
class PseudoDecodeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto real = MakeCpuBackend({.threads = 1});
    ASSERT_THAT(real, IsOk());
    real_ = *std::move(real);
    backend_ = std::make_unique<testing::SealInterceptor>(*real_);
    const auto file = OpenWeightFile(ASYMSERVE_SOURCE_DIR "/tests/golden/stories260K.gguf");
    ASSERT_THAT(file, IsOk());
    auto model = LlamaModel::Load(**file, *backend_, {});
    ASSERT_THAT(model, IsOk());
    model_ = *std::move(model);
    const ModelConfig& config = model_->config();
    shape_ = {config.layers, config.attention.kv_heads, config.attention.head_size};
    for (int32_t i = 0; i < 333; ++i) tokens_.push_back(1 + (i * i * 7 + 3 * i) % 500);
  }

  absl::StatusOr<PseudoDecoder> Make(const std::string& scheme, int32_t max_tokens = 512) {
    KvSetup setup;
    setup.shape = shape_;
    auto named = NamedKvScheme(scheme, shape_);
    EXPECT_THAT(named, IsOk());
    setup.scheme = *std::move(named);
    return PseudoDecoder::Create(*model_, *backend_, setup, max_tokens);
  }

  Logits Run(PseudoDecoder& decoder, int32_t from = 0) {
    Logits all;
    EXPECT_THAT(decoder.Run(tokens_, from,
                            [&](int32_t position, std::span<const float> logits) {
                              EXPECT_TRUE(all.empty() || all.rbegin()->first == position - 1);
                              all[position].assign(logits.begin(), logits.end());
                            }),
                IsOk());
    return all;
  }

  Logits Run(const std::string& scheme) {
    auto decoder = Make(scheme);
    EXPECT_THAT(decoder, IsOk());
    return decoder.ok() ? Run(*decoder) : Logits();
  }

  /// The first position whose logits differ in a bit; -1 if none.
  static int32_t FirstDifference(const Logits& a, const Logits& b) {
    EXPECT_EQ(a.size(), b.size());
    for (const auto& [position, logits] : a) {
      if (logits != b.at(position)) return position;
    }
    return -1;
  }

  std::unique_ptr<Backend> real_;
  std::unique_ptr<testing::SealInterceptor> backend_;
  std::unique_ptr<LlamaModel> model_;
  KvShape shape_;
  std::vector<int32_t> tokens_;
};

TEST_F(PseudoDecodeTest, ExactPagesGiveTheBitsOfOneStepOverAllTokens) {
  const Logits paged = Run("exact");
  ASSERT_THAT(real_->KvInit(testing::ExactKvSetup(shape_, 6)), IsOk());
  std::vector<int32_t> positions, rows;
  for (int32_t i = 0; i < 333; ++i) positions.push_back(i);
  for (int32_t i = 270; i < 332; ++i) rows.push_back(i);
  std::vector<KvPage> pages;
  for (int32_t i = 0; i < 6; ++i) pages.push_back({.near = PageId{i}});
  const std::vector<int32_t> token_offset = {0, 333}, page_offset = {0, 6};
  const auto logits =
      model_->Forward({tokens_, {positions, token_offset, pages, page_offset}, rows, {}});
  ASSERT_THAT(logits, IsOk());
  for (size_t i = 0; i < rows.size(); ++i) {
    const float* row = logits->Row<float>(static_cast<int64_t>(i));
    EXPECT_EQ(paged.at(rows[i]), std::vector<float>(row, row + model_->vocabulary()));
  }
}

TEST_F(PseudoDecodeTest, DeliversThePositionsWhoseNextTokenIsKnown) {
  auto decoder = Make("exact");
  ASSERT_THAT(decoder, IsOk());
  std::vector<int32_t> steps;
  for (const int32_t from : {0, 63, 64, 100, 319, 320, 331}) {
    const Logits all = Run(*decoder, from);
    EXPECT_EQ(all.size(), static_cast<size_t>(332 - from));
    EXPECT_EQ(all.begin()->first, from);
  }
  EXPECT_TRUE(Run(*decoder, 332).empty());
  ASSERT_THAT(decoder->Run(
                  tokens_, 332, [](int32_t, std::span<const float>) {},
                  [&](int32_t done) { steps.push_back(done); }),
              IsOk());
  EXPECT_THAT(steps, ::testing::ElementsAre(64, 128, 192, 256, 320, 333));
}

TEST_F(PseudoDecodeTest, ASchemeActsFromThePositionWhereItsFirstPageIsSealed) {
  const Logits exact = Run("exact");
  EXPECT_EQ(FirstDifference(exact, Run("exact")), -1);
  EXPECT_EQ(FirstDifference(exact, Run("int8")), 0);
  EXPECT_EQ(FirstDifference(exact, Run("kivi-2")), 128);
  EXPECT_EQ(FirstDifference(exact, Run("fit-2/2")), 192);
}

TEST_F(PseudoDecodeTest, ARunLeavesNothingBehind) {
  for (const char* scheme : {"exact", "kivi-2", "fit-2/1"}) {
    auto decoder = Make(scheme);
    ASSERT_THAT(decoder, IsOk());
    const Logits first = Run(*decoder);
    EXPECT_EQ(FirstDifference(first, Run(*decoder)), -1) << scheme;
  }
}

TEST_F(PseudoDecodeTest, DamagedSealedPagesChangeTheResultFromTheirSealingOn) {
  const struct {
    const char* scheme;
    int32_t keys_from, values_from;  // page 2 is sealed before the token at this position
  } kCases[] = {{"kivi-2", 256, 320}, {"asymkv-0/5", 256, 320}, {"fit-4/2", 256, 256}};
  for (const auto& one : kCases) {
    backend_->set_hook(nullptr);
    const Logits sound = Run(one.scheme);
    for (const bool keys : {true, false}) {
      SCOPED_TRACE(std::string(one.scheme) + (keys ? " keys" : " values"));
      // Page 2 is sealed from the near record of which page 1 was: other tokens.
      PageId other = kNoPage;
      bool damaged = false;
      backend_->set_hook([&](std::vector<KvSealOp>& ops) {
        std::vector<KvSealOp> replaced;
        for (KvSealOp op : ops) {
          const bool seals = keys ? op.keys : op.values;
          if (seals && op.page == 1) other = op.near;
          if (seals && op.page == 2) {
            EXPECT_NE(op.near, other);
            KvSealOp wrong = op;
            wrong.near = other;
            wrong.keys = keys;
            wrong.values = !keys;
            replaced.push_back(wrong);
            damaged = true;
            (keys ? op.keys : op.values) = false;
          }
          if (op.keys || op.values) replaced.push_back(op);
        }
        ops = replaced;
        return absl::OkStatus();
      });
      EXPECT_EQ(FirstDifference(sound, Run(one.scheme)), keys ? one.keys_from : one.values_from);
      EXPECT_TRUE(damaged);
    }
  }
}

TEST_F(PseudoDecodeTest, ATokenAtATimeGivesTheBitsOfWholePages) {
  for (const char* scheme : {"exact", "kivi-2", "fit-2/1"}) {
    auto decoder = Make(scheme);
    ASSERT_THAT(decoder, IsOk());
    const Logits whole = Run(*decoder);
    Logits single;
    const auto keep = [&](int32_t position, std::span<const float> logits) {
      single[position].assign(logits.begin(), logits.end());
    };
    const std::span<const int32_t> tokens = tokens_;
    ASSERT_THAT(decoder->Extend(0, tokens.first(250), keep), IsOk());
    for (size_t i = 250; i < 332; ++i) {
      ASSERT_THAT(decoder->Extend(decoder->length(), tokens.subspan(i, 1), keep), IsOk());
    }
    EXPECT_EQ(decoder->length(), 332);
    ASSERT_EQ(single.size(), 83u);
    for (const auto& [position, logits] : single) {
      EXPECT_EQ(logits, whole.at(position)) << scheme << " at " << position;
    }
  }
}

TEST_F(PseudoDecodeTest, WhatWasSaidInTheLastPageCanBeSaidOtherwise) {
  auto decoder = Make("kivi-2");
  ASSERT_THAT(decoder, IsOk());
  const Logits whole = Run(*decoder);
  std::vector<float> last;
  const auto keep = [&](int32_t, std::span<const float> logits) {
    last.assign(logits.begin(), logits.end());
  };
  const std::span<const int32_t> tokens = tokens_;
  const std::vector<int32_t> other = {7, 300, 12};
  ASSERT_THAT(decoder->Extend(0, tokens.first(290), keep), IsOk());
  ASSERT_THAT(decoder->Extend(270, other, keep), IsOk());
  EXPECT_NE(last, whole.at(272));
  EXPECT_EQ(decoder->length(), 273);
  ASSERT_THAT(decoder->Extend(270, tokens.subspan(270, 30), keep), IsOk());
  EXPECT_EQ(last, whole.at(299));

  EXPECT_TRUE(decoder->CanExtend(256));
  EXPECT_FALSE(decoder->CanExtend(255));
  EXPECT_FALSE(decoder->CanExtend(301));
  EXPECT_FALSE(decoder->CanExtend(-1));
  EXPECT_THAT(decoder->Extend(255, other, keep),
              FailsWith(StatusCode::kInternal, "3 tokens at 255 after 300"));
  EXPECT_THAT(decoder->Extend(300, tokens.first(213), keep),
              FailsWith(StatusCode::kInternal, "prepared for 512"));
  decoder->Clear();
  EXPECT_EQ(decoder->length(), 0);
  EXPECT_EQ(FirstDifference(whole, Run(*decoder)), -1);
}

TEST_F(PseudoDecodeTest, AnErrorOfTheBackendEndsTheRunAndFreesItsRecords) {
  auto decoder = Make("kivi-2");
  ASSERT_THAT(decoder, IsOk());
  const Logits sound = Run(*decoder);
  backend_->set_hook([](std::vector<KvSealOp>&) { return absl::InternalError("seal broke"); });
  EXPECT_THAT(decoder->Run(tokens_, 0, [](int32_t, std::span<const float>) {}),
              FailsWith(StatusCode::kInternal, "seal broke"));
  backend_->set_hook(nullptr);
  EXPECT_EQ(FirstDifference(sound, Run(*decoder)), -1);
}

TEST_F(PseudoDecodeTest, RefusesWhatDoesNotFit) {
  EXPECT_THAT(Make("exact", 513), FailsWith(StatusCode::kInvalidArgument, "context is 512"));
  EXPECT_THAT(Make("exact", 0), FailsWith(StatusCode::kInvalidArgument, "of 0 tokens"));
  KvSetup setup;
  setup.shape = shape_;
  setup.scheme.page_tokens = 32;
  EXPECT_THAT(PseudoDecoder::Create(*model_, *backend_, setup, 64),
              FailsWith(StatusCode::kInvalidArgument, "pages of 32 tokens"));
  auto decoder = Make("exact", 100);
  ASSERT_THAT(decoder, IsOk());
  EXPECT_THAT(decoder->Run(tokens_, 0, [](int32_t, std::span<const float>) {}),
              FailsWith(StatusCode::kInternal, "333 tokens from 0, prepared for 100"));
}

}  // namespace
}  // namespace asymserve
