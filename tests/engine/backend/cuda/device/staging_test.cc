#include "engine/backend/cuda/staging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "tests/engine/backend/cuda/device/fake_device.h"
#include "tests/support/status_matchers.h"

namespace asymserve {
namespace {

using ::asymserve::testing::DeviceCall;
using ::asymserve::testing::DeviceLog;
using ::asymserve::testing::FailsWith;
using ::asymserve::testing::FakeDevice;
using ::asymserve::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class StagingTest : public ::testing::Test {
 protected:
  std::shared_ptr<DeviceLog> log_ = std::make_shared<DeviceLog>();
  FakeDevice device_{log_};
};

TEST_F(StagingTest, CopiesMoreThanItHoldsAndWaitsBeforeItsMemoryIsUsedAgain) {
  std::vector<uint8_t> values(1000);
  std::iota(values.begin(), values.end(), uint8_t{0});
  void* there = nullptr;
  ASSERT_EQ(device_.Allocate(&there, 1000), cudaSuccess);
  {
    const auto staging = cuda::Staging::Create(device_, 48);
    ASSERT_THAT(staging, IsOk());
    for (const int64_t begin : {0, 100, 107, 500}) {
      const int64_t end = begin == 0 ? 100 : begin == 100 ? 107 : begin == 107 ? 500 : 1000;
      std::vector<uint8_t> part(values.begin() + begin, values.begin() + end);
      ASSERT_THAT((*staging)->Copy(static_cast<uint8_t*>(there) + begin, part.data(), end - begin,
                                   "numbers"),
                  IsOk());
      part.assign(part.size(), 0);
    }
    EXPECT_GT(log_->count(DeviceCall::kWaitEvent), 18);
    EXPECT_EQ(device_.Synchronize(), cudaSuccess);
  }
  const auto* bytes = static_cast<const uint8_t*>(there);
  EXPECT_EQ(std::vector<uint8_t>(bytes, bytes + 1000), values);
  device_.Free(there);
  EXPECT_TRUE(log_->empty());
  EXPECT_THAT(log_->misuse, IsEmpty());
}

TEST_F(StagingTest, ErrorsNameWhatWasCopied) {
  void* there = nullptr;
  ASSERT_EQ(device_.Allocate(&there, 8), cudaSuccess);
  const auto staging = cuda::Staging::Create(device_, 64);
  ASSERT_THAT(staging, IsOk());
  log_->failing = DeviceCall::kCopyToDevice;
  log_->fails_at = 0;
  EXPECT_THAT((*staging)->Copy(there, "1234567", 8, "positions"),
              FailsWith(absl::StatusCode::kInternal,
                        "cuda: copying 8 bytes of positions to the device: unknown error"));
  device_.Free(there);
}

// What the other tests rely on.
TEST_F(StagingTest, TheFakeNoticesASourceThatChangesBeforeItsCopyWasWaitedFor) {
  void* there = nullptr;
  void* pinned = nullptr;
  ASSERT_EQ(device_.Allocate(&there, 16), cudaSuccess);
  ASSERT_EQ(device_.AllocatePinned(&pinned, 16), cudaSuccess);
  EXPECT_EQ(device_.CopyToDevice(there, pinned, 16), cudaSuccess);
  static_cast<uint8_t*>(pinned)[3] = 1;
  EXPECT_EQ(device_.Synchronize(), cudaSuccess);
  EXPECT_THAT(log_->misuse, ElementsAre(HasSubstr("changed before")));
  device_.Free(there);
  device_.FreePinned(pinned);
}

TEST_F(StagingTest, TheFakeGivesTheHostItsBytesOnlyWhenTheyWereWaitedFor) {
  void* there = nullptr;
  void* pinned = nullptr;
  ASSERT_EQ(device_.Allocate(&there, 1), cudaSuccess);
  ASSERT_EQ(device_.AllocatePinned(&pinned, 1), cudaSuccess);
  ASSERT_EQ(device_.Fill(there, 7, 1), cudaSuccess);
  ASSERT_EQ(device_.CopyToHost(pinned, there, 1), cudaSuccess);
  EXPECT_EQ(*static_cast<uint8_t*>(pinned), 0xFF);
  ASSERT_EQ(device_.Synchronize(), cudaSuccess);
  EXPECT_EQ(*static_cast<uint8_t*>(pinned), 7);
  device_.Free(there);
  device_.FreePinned(pinned);
}

}  // namespace
}  // namespace asymserve
