#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::simt::SameInEveryOrder;
using ::testing::HasSubstr;

std::string Fault() {
  return simt::Machine::Instance().TakeFault();
}

template <auto kKernel>
std::vector<int> RunKernel(dim3 grid, dim3 block) {
  const size_t threads = size_t{grid.x} * grid.y * grid.z * block.x * block.y * block.z;
  std::vector<int> out(threads, -1);
  EXPECT_EQ(Launch<kKernel>(grid, block, 0, nullptr, out.data()), cudaSuccess) << Fault();
  return out;
}

__global__ void WriteIndices(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] =
      static_cast<int>(1000 * block + thread);
}

TEST(LaunchTest, RunsEveryThreadOfEveryBlockOnce) {
  const auto out = SameInEveryOrder([] { return RunKernel<WriteIndices>({2, 3, 2}, {5, 2, 3}); });
  ASSERT_EQ(out.size(), 360u);
  for (size_t i = 0; i < out.size(); ++i)
    EXPECT_EQ(out[i], static_cast<int>(1000 * (i / 30) + i % 30));
}

__global__ void Shuffles(int* out) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  int sum = __shfl_sync(kWholeWarp, lane, 3);                   // 3
  sum = 100 * sum + __shfl_xor_sync(kWholeWarp, lane, 5);       // lane ^ 5
  sum = 100 * sum + __shfl_up_sync(kWholeWarp, lane, 2);        // lane - 2, or lane
  sum = 100 * sum + __shfl_down_sync(kWholeWarp, lane, 7, 16);  // lane + 7 in its half
  out[threadIdx.x] = sum;
}

TEST(CollectivesTest, ShufflesReadTheLanesThatCudaSays) {
  const auto out = SameInEveryOrder([] { return RunKernel<Shuffles>(1, 64); });
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32;
    const int down = lane % 16 + 7 < 16 ? lane + 7 : lane;
    const int up = lane >= 2 ? lane - 2 : lane;
    EXPECT_EQ(out[static_cast<size_t>(i)], ((300 + (lane ^ 5)) * 100 + up) * 100 + down);
  }
}

__global__ void Votes(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const uint32_t ballot = __ballot_sync(kWholeWarp, lane % 3 == 0);
  int votes = __popc(ballot);
  votes = 2 * votes + __any_sync(kWholeWarp, lane == 31);
  votes = 2 * votes + __any_sync(kWholeWarp, lane == 32);
  votes = 2 * votes + __all_sync(kWholeWarp, lane < 32);
  votes = 2 * votes + __all_sync(kWholeWarp, lane < 31);
  const int sum = __reduce_add_sync(kWholeWarp, lane);
  const int span = __reduce_max_sync(kWholeWarp, lane) - __reduce_min_sync(kWholeWarp, lane - 9);
  out[lane] = votes * 100000 + sum * 100 + span;
}

TEST(CollectivesTest, VotesAndReductionsCountAllLanes) {
  const auto out = SameInEveryOrder([] { return RunKernel<Votes>(1, 32); });
  for (const int value : out) EXPECT_EQ(value, (11 * 16 + 0b1010) * 100000 + 496 * 100 + 40);
}

__global__ void HalvesOnTheirOwn(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int sum = 0;
  if (lane < 16) {
    for (int i = 0; i < 3; ++i) sum += __shfl_sync(0x0000FFFFu, lane, i);
  } else {
    for (int i = 0; i < 5; ++i) sum += __shfl_sync(0xFFFF0000u, lane, 16 + i);
  }
  out[lane] = sum;
}

TEST(CollectivesTest, LanesOfDifferentMasksDoNotWaitForEachOther) {
  const auto out = SameInEveryOrder([] { return RunKernel<HalvesOnTheirOwn>(1, 32); });
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(out[i], i < 16 ? 3 : 90);
}

__global__ void PartialWarp(int* out) {
  out[threadIdx.x] = static_cast<int>(__ballot_sync(kWholeWarp, 1) % 1000);
}

TEST(CollectivesTest, AWholeMaskMeansTheLanesThatAPartialWarpHas) {
  for (const int value : RunKernel<PartialWarp>(1, 5)) EXPECT_EQ(value, 31);
}

__global__ void PartialReductions(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  const int least = __reduce_min_sync(kWholeWarp, lane + 3);
  const int most = __reduce_max_sync(kWholeWarp, -lane - 3);
  out[lane] = 100 * least + most + (__all_sync(kWholeWarp, 1) != 0 ? 10'000 : 0);
}

TEST(CollectivesTest, LanesThatAPartialWarpHasNotAddNothingToAReduction) {
  const auto out = SameInEveryOrder([] { return RunKernel<PartialReductions>(1, 5); });
  for (const int value : out) EXPECT_EQ(value, 10'000 + 300 - 3);
}

__global__ void SumsOfABlock(int* out, SharedSlice<float> slice) {
  const SharedArray<float> scratch = Shared("scratch", slice);
  out[threadIdx.x] = static_cast<int>(BlockSum(static_cast<float>(threadIdx.x), scratch));
}

TEST(CollectivesTest, ABlocksSumIsThatOfAllItsThreads) {
  SharedPlan plan;
  const auto slice = plan.Take<float>(32);
  for (const unsigned threads : {32u, 96u, 1024u}) {
    const auto out = SameInEveryOrder([&] {
      std::vector<int> sums(threads);
      EXPECT_EQ(Launch<SumsOfABlock>(1, threads, plan.bytes(), nullptr, sums.data(), slice),
                cudaSuccess)
          << Fault();
      return sums;
    });
    for (const int sum : out) EXPECT_EQ(sum, static_cast<int>(threads * (threads - 1) / 2));
  }
}

__global__ void Tickets(int* out) {
  out[1 + threadIdx.x] = atomicAdd(out, 1);
}

TEST(OrderTest, AResultThatDependsOnTheOrderOfThreadsShowsIt) {
  simt::Machine& machine = simt::Machine::Instance();
  std::vector<std::vector<int>> results;
  simt::ForEachOrder([&] {
    std::vector<int> out(65);
    ASSERT_EQ(Launch<Tickets>(1, 64, 0, nullptr, out.data()), cudaSuccess);
    EXPECT_EQ(out[0], 64);
    results.push_back(out);
  });
  EXPECT_NE(results[0], results[1]);
  EXPECT_NE(results[0], results[2]);
  EXPECT_NE(results[1], results[2]);
  EXPECT_EQ(machine.order, simt::Order::kForward);
}

// ---- Planted ------------------------------------------------------------------------------------

__global__ void ShuffleInABranch(int* out) {
  int value = 1;
  if (threadIdx.x % 2 == 1) value += __shfl_xor_sync(kWholeWarp, value, 1);
  out[threadIdx.x] = value;
}
__global__ void TwoShufflesForOneMask(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  int value = 0;
  if (lane < 16) {
    value = __shfl_sync(kWholeWarp, lane, 1);
  } else {
    value = __shfl_sync(kWholeWarp, lane, 2);
  }
  out[lane] = value;
}
__global__ void NotInItsMask(int* out) {
  out[threadIdx.x] = __shfl_sync(0xFFFFu, 1, 0);
}
__global__ void ReadsOutsideTheMask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xFFFFu, 1, 20);
}
__global__ void ALaneReturnsEarly(int* out) {
  if (threadIdx.x == 7) return;
  out[threadIdx.x] = __shfl_sync(kWholeWarp, 1, 0);
}

__global__ void ExchangesWithTheUpperHalf(int* out) {
  out[threadIdx.x] = __shfl_xor_sync(kWholeWarp, 1, 16);
}

template <auto kKernel>
std::string FaultOf(unsigned threads = 32) {
  std::vector<int> out(64);
  EXPECT_EQ(Launch<kKernel>(1, threads, 0, nullptr, out.data()), cudaErrorLaunchFailure);
  return Fault();
}

TEST(DivergenceTest, LanesThatMissACollectiveAreCaughtInEveryOrder) {
  simt::ForEachOrder([] {
    EXPECT_THAT(FaultOf<ShuffleInABranch>(),
                HasSubstr("warp divergence: lanes of a mask never meet"));
    EXPECT_THAT(FaultOf<TwoShufflesForOneMask>(),
                HasSubstr("warp divergence: lanes of one mask are at"));
    EXPECT_THAT(FaultOf<NotInItsMask>(), HasSubstr("is not in its own mask"));
    EXPECT_THAT(FaultOf<ReadsOutsideTheMask>(),
                HasSubstr("reads lane 20, which is not in its mask"));
    EXPECT_THAT(FaultOf<ALaneReturnsEarly>(), HasSubstr("has returned"));
  });
}

TEST(DivergenceTest, AShuffleFromALaneThatTheWarpDoesNotHaveIsCaughtInEveryOrder) {
  simt::ForEachOrder([] {
    EXPECT_THAT(FaultOf<ExchangesWithTheUpperHalf>(20), HasSubstr("which its warp does not have"));
    EXPECT_THAT(FaultOf<ExchangesWithTheUpperHalf>(52), HasSubstr("which its warp does not have"));
    RunKernel<ExchangesWithTheUpperHalf>(1, 32);
  });
}

TEST(DivergenceTest, AFaultNamesKernelBlockAndPlace) {
  const std::string fault = FaultOf<ShuffleInABranch>();
  EXPECT_THAT(fault, HasSubstr("ShuffleInABranch"));
  EXPECT_THAT(fault, HasSubstr("block (0,0,0)"));
  EXPECT_THAT(fault, HasSubstr("collectives_test.cc:"));
  EXPECT_EQ(Fault(), "");  // asked for once
}

TEST(LaunchTest, ALaunchThatADeviceWouldRefuseIsRefused) {
  std::vector<int> out(1);
  constexpr int64_t kMuch = 64 << 10;
  EXPECT_EQ(Launch<WriteIndices>(1, 1025, 0, nullptr, out.data()), cudaErrorInvalidConfiguration);
  EXPECT_EQ(Launch<WriteIndices>(dim3(0), 32, 0, nullptr, out.data()),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(Launch<WriteIndices>(dim3(1, 65536), 32, 0, nullptr, out.data()),
            cudaErrorInvalidConfiguration);
  EXPECT_EQ(Launch<WriteIndices>(1, 1, 228 << 10, nullptr, out.data()), cudaErrorInvalidValue);
  const cudaLaunchConfig_t config = {dim3(1), dim3(1), kMuch, nullptr, nullptr, 0};
  EXPECT_EQ(cudaLaunchKernelEx(&config, PartialWarp, out.data()), cudaErrorInvalidValue)
      << "more than 48 KiB without asking";
  EXPECT_EQ(Launch<PartialWarp>(1, 1, kMuch, nullptr, out.data()), cudaSuccess);
}

}  // namespace
}  // namespace asymserve
