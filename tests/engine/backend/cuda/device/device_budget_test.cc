// A plan for a device with memory of its own: what it shares out, and what happens when others take
// it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>

#include "engine/runtime/memory_watch.h"
#include "engine/runtime/model_loader.h"
#include "tests/engine/backend/cuda/device/toy_server.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceCall;
using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::IsOk;
using ::asymserve::testing::MakeCuda;
using ::asymserve::testing::OddToy;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kMiB = int64_t{1} << 20;

class DeviceBudgetTest : public ::testing::Test {
 protected:
  DeviceBudgetTest() {
    options_.path = directory_.Path("toy.gguf");
    testing::WriteToyGguf(OddToy(), options_.path);
    log_->capacity = 48 * kMiB;
    options_.memory_margin_bytes = kMiB;
    // More than the device holds: all of it is used.
    options_.max_context_tokens = 1024;
    options_.max_running = 256;
  }
  absl::StatusOr<LoadedModel> Load() {
    backend_ = MakeCuda(log_);
    return LoadModel(*backend_, options_);
  }

  const testing::TempDir directory_;
  const std::shared_ptr<DeviceLog> log_ = std::make_shared<DeviceLog>();
  LoadOptions options_;
  std::unique_ptr<Backend> backend_;
};

TEST_F(DeviceBudgetTest, ThePlanIsOfWhatIsFreeOnTheDeviceAndOfNothingElse) {
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  const MemoryPlan& plan = loaded->memory_plan;
  EXPECT_EQ(plan.ledger.budget_bytes, log_->capacity);
  EXPECT_EQ(plan.ledger[LedgerRow::kRuntime], 0);
  EXPECT_EQ(plan.ledger.total(), log_->capacity);
  // Everything is used but for the margin, a slab that does not fit, and the rounding of the arena.
  EXPECT_LE(log_->used, log_->capacity - kMiB);
  EXPECT_GE(log_->used, log_->capacity - kMiB - plan.arena.slab_bytes - 2 * kMiB);
  EXPECT_EQ(log_->allocated.back(), plan.kv_bytes()) << "the arena is one allocation, the last";
  EXPECT_GT(plan.host_bytes, 64 * kMiB);
}

TEST_F(DeviceBudgetTest, WhatOthersHoldOnTheDeviceIsNotInTheBudget) {
  log_->others = 20 * kMiB;
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->memory_plan.ledger.budget_bytes, 28 * kMiB);
  EXPECT_LE(log_->used, 27 * kMiB);
}

TEST_F(DeviceBudgetTest, MemoryBytesLimitsWhatIsTakenOfTheDevice) {
  options_.memory_bytes = 30 * kMiB;
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->memory_plan.ledger.budget_bytes, 30 * kMiB);
  EXPECT_LE(log_->used, 29 * kMiB);
}

TEST_F(DeviceBudgetTest, MoreThanTheDeviceHasFreeIsRefusedWithBothNumbers) {
  options_.memory_bytes = 47 * kMiB;
  log_->others = 2 * kMiB;
  EXPECT_THAT(Load(), FailsWith(absl::StatusCode::kInvalidArgument,
                                "engine.memory_bytes: 49283072 bytes (47.0 MiB); of the 50331648 "
                                "bytes (48.0 MiB) of cuda (fake) 48234496 bytes (46.0 MiB) are "
                                "free"));
  EXPECT_EQ(log_->allocated.size(), 0u);
}

TEST_F(DeviceBudgetTest, ADeviceThatHoldsNoSequenceIsNamedAndTheHostIsNot) {
  log_->capacity = 3 * kMiB;
  const auto loaded = Load();
  EXPECT_THAT(loaded, FailsWith(absl::StatusCode::kInvalidArgument,
                                "engine.memory_bytes = 0 (what is free on the device): 3145728 "
                                "bytes (3.00 MiB) are less than"));
  EXPECT_THAT(std::string(loaded.status().message()), Not(HasSubstr("the rest of the process")));
}

TEST_F(DeviceBudgetTest, MemoryThatGoesElsewhereWhileTheWeightsLoadIsAnErrorWithItsBytes) {
  log_->others = 7 * kMiB;
  log_->others_after = 5;
  const auto loaded = Load();
  EXPECT_THAT(loaded, FailsWith(absl::StatusCode::kResourceExhausted,
                                "the plan was made when 50331648 bytes (48.0 MiB) were free"));
  const std::string message(loaded.status().message());
  EXPECT_THAT(message, HasSubstr("7340032 bytes went elsewhere since"));
  // What it says to set is enough.
  const std::string before_limit = "set engine.memory_bytes to ";
  options_.memory_bytes =
      std::stoll(message.substr(message.find(before_limit) + before_limit.size()));
  backend_.reset();
  EXPECT_EQ(log_->used, 0) << "of the plan that failed";
  log_->calls[static_cast<size_t>(DeviceCall::kAllocate)] = 0;
  EXPECT_THAT(Load(), IsOk());
}

TEST_F(DeviceBudgetTest, TheWatchHoldsTheHostAndTheDeviceApart) {
  log_->others = 3 * kMiB;
  const auto loaded = Load();
  ASSERT_THAT(loaded, IsOk());
  MemoryWatch watch(*backend_, loaded->memory_plan);
  const auto report = watch.Report();
  ASSERT_THAT(report, IsOk());
  EXPECT_EQ(report->planned.total(), log_->used);
  EXPECT_EQ(report->measured.mapped.total(), log_->used);
  EXPECT_EQ(report->runtime_bound, loaded->memory_plan.host_bytes);
  EXPECT_EQ(report->runtime_resident(), report->process_resident);
  ASSERT_TRUE(report->room.has_value());
  EXPECT_EQ(report->room->free_bytes, 45 * kMiB - log_->used);
  EXPECT_EQ(report->room->total_bytes, 48 * kMiB);
}

TEST_F(DeviceBudgetTest, FourBitWeightsArePlannedAndTakenInAboutTheirBytesInTheFile) {
  // F, a multiple of the block; a vocabulary that fills no tile.
  testing::ToyModel toy = OddToy();
  toy.width = 256;
  toy.feed_forward_width = 512;
  toy.heads = 32;
  std::array<int64_t, 2> weights = {};
  for (const bool four_bit : {false, true}) {
    toy.dtype = four_bit ? DType::kQ4_0 : DType::kF16;
    toy.embedding_dtype = four_bit ? DType::kQ4_1 : DType::kF16;
    testing::WriteToyGguf(toy, options_.path);
    const auto loaded = Load();
    ASSERT_THAT(loaded, IsOk());
    const MemoryBytes counted = backend_->CountedMemory();
    weights[four_bit ? 1 : 0] = counted[MemoryClass::kWeights];
    EXPECT_EQ(loaded->memory_plan.ledger[LedgerRow::kWeights], counted[MemoryClass::kWeights]);
    EXPECT_EQ(counted.total(), log_->used);
  }
  EXPECT_NEAR(static_cast<double>(weights[1]) / static_cast<double>(weights[0]), 0.57 / 2, 0.01);
}

TEST_F(DeviceBudgetTest, AWatchOnTheCpuKnowsOfNoDevice) {
  backend_ = testing::MakeCpu();
  options_.kv_memory_bytes = 16 * kMiB;
  const auto loaded = LoadModel(*backend_, options_);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->memory_plan.host_bytes, 0);
  MemoryWatch watch(*backend_, loaded->memory_plan);
  const auto report = watch.Report();
  ASSERT_THAT(report, IsOk());
  EXPECT_FALSE(report->room.has_value());
  EXPECT_EQ(report->runtime_bound, loaded->memory_plan.ledger[LedgerRow::kRuntime]);
}

}  // namespace
}  // namespace asymserve
