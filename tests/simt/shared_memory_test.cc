#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "tests/simt/orders.h"

namespace asymserve {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int kThreads = 96;

struct Arrays {
  SharedSlice<float> floats;
  SharedSlice<uint8_t> bytes;
};

template <auto kKernel>
cudaError_t RunKernel(std::vector<float>* out) {
  SharedPlan plan;
  Arrays arrays;
  arrays.floats = plan.Take<float>(kThreads);
  arrays.bytes = plan.Take<uint8_t>(kThreads);
  out->assign(kThreads, -1.0f);
  return Launch<kKernel>(1, kThreads, plan.bytes(), nullptr, out->data(), arrays);
}

/// Of a kernel that must work, in every order.
template <auto kKernel>
std::vector<float> ResultOf() {
  return simt::SameInEveryOrder([] {
    std::vector<float> out;
    EXPECT_EQ(RunKernel<kKernel>(&out), cudaSuccess) << simt::Machine::Instance().TakeFault();
    return out;
  });
}

/// Of a kernel that must not: it fails in every order, with a text that `matcher` takes.
template <auto kKernel, typename Matcher>
void ExpectFault(const Matcher& matcher) {
  simt::ForEachOrder([&] {
    std::vector<float> out;
    EXPECT_EQ(RunKernel<kKernel>(&out), cudaErrorLaunchFailure);
    EXPECT_THAT(simt::Machine::Instance().TakeFault(), matcher);
  });
}

__global__ void Reverse(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  __syncthreads();
  const float other = s[kThreads - 1 - t];
  __syncthreads();
  s[t] += other;  // only now: the one that read it is past a barrier
  out[t] = s[t];
}
__global__ void ReverseWithoutBarrier(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = 0.0f;
  __syncthreads();
  s[t] = static_cast<float>(t);
  out[t] = s[kThreads - 1 - t];
}
__global__ void OverwritesWhatOthersRead(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  __syncthreads();
  out[t] = s[(t + 1) % kThreads];
  s[t] = 0.0f;
}
__global__ void TwoWriteOnePlace(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t / 2] = 1.0f;  // the same value, and a race all the same
  out[t] = 0.0f;
}
__global__ void ReadsWhatNobodyWrote(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  if (t != 40) s[t] = 1.0f;
  __syncthreads();
  out[t] = s[kThreads - 1 - t];
}
__global__ void WritesBehindTheEnd(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t + 1] = 1.0f;  // the bytes behind are those of another array
  out[t] = 0.0f;
}
__global__ void ReadsBeforeTheBeginning(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = 1.0f;
  __syncthreads();
  out[t] = (s + 3)[t - 4];
}
__global__ void TakesMoreThanTheLaunchHas(float* out, Arrays arrays) {
  arrays.bytes.count = 1000;
  Shared("all", arrays.bytes);
  out[threadIdx.x] = 0.0f;
}

TEST(SharedMemoryTest, BarriersOrderAccesses) {
  for (const float sum : ResultOf<Reverse>()) EXPECT_EQ(sum, kThreads - 1);
}

TEST(SharedMemoryTest, AMissingBarrierIsARaceInEveryOrder) {
  ExpectFault<ReverseWithoutBarrier>(
      AllOf(HasSubstr("ReverseWithoutBarrier"), HasSubstr("race: thread"), HasSubstr("s["),
            HasSubstr("shared byte"), HasSubstr("no barrier in between")));
  ExpectFault<OverwritesWhatOthersRead>(HasSubstr("race: thread"));
  ExpectFault<TwoWriteOnePlace>(
      AllOf(HasSubstr("race: thread"), HasSubstr("wrote, with no barrier")));
}

TEST(SharedMemoryTest, ARaceNamesBothThreadsAndTheElement) {
  std::vector<float> out;
  ASSERT_EQ(RunKernel<OverwritesWhatOthersRead>(&out), cudaErrorLaunchFailure);
  // Thread 0 reads s[1], then thread 1 writes it.
  EXPECT_THAT(simt::Machine::Instance().TakeFault(),
              HasSubstr("race: thread 1 writes s[1] (shared byte 4), which thread 0 read"));
}

TEST(SharedMemoryTest, ReadingWhatNobodyWroteIsCaught) {
  ExpectFault<ReadsWhatNobodyWrote>(
      AllOf(HasSubstr("uninitialized read: thread 55 reads s[40]"), HasSubstr("nobody wrote")));
}

TEST(SharedMemoryTest, AnIndexOutsideOfItsArrayIsCaughtInsideOfTheBlocksMemoryToo) {
  ExpectFault<WritesBehindTheEnd>(HasSubstr("out of bounds: s[96] of 96 elements"));
  ExpectFault<ReadsBeforeTheBeginning>(HasSubstr("out of bounds: s[-1] of 96 elements"));
  ExpectFault<TakesMoreThanTheLaunchHas>(HasSubstr("out of bounds: all ends 1384 bytes into"));
}

template <bool kSync>
__global__ void NeighboursInAWarp(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  if (kSync) __syncwarp();
  const float other = s[t ^ 1];
  if (kSync) __syncwarp();
  s[t] = other;
  out[t] = s[t];
}
__global__ void NeighboursInAnotherWarp(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  __syncwarp();
  out[t] = s[(t + 32) % kThreads];
}
__global__ void AShuffleIsNoBarrier(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<float>(t);
  const float sum = WarpSum(1.0f);
  out[t] = sum + s[t ^ 1];
}

TEST(SharedMemoryTest, SyncwarpOrdersTheLanesOfAWarpAndNothingElse) {
  const auto out = ResultOf<NeighboursInAWarp<true>>();
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(out[static_cast<size_t>(t)], t ^ 1);
  ExpectFault<NeighboursInAWarp<false>>(HasSubstr("s["));
  ExpectFault<NeighboursInAnotherWarp>(HasSubstr("s["));
  ExpectFault<AShuffleIsNoBarrier>(HasSubstr("s["));
}

__global__ void NeighbouringBytes(float* out, Arrays arrays) {
  const SharedArray<uint8_t> s = Shared("bytes", arrays.bytes);
  const int t = static_cast<int>(threadIdx.x);
  s[t] = static_cast<uint8_t>(2 * t);
  out[t] = s[t];
}

TEST(SharedMemoryTest, BytesOfDifferentThreadsInOneWordAreNoRace) {
  const auto out = ResultOf<NeighbouringBytes>();
  for (int t = 0; t < kThreads; ++t) EXPECT_EQ(out[static_cast<size_t>(t)], 2 * t);
}

template <bool kBarrier>
__global__ void Counts(float* out, Arrays arrays) {
  const SharedArray<float> s = Shared("s", arrays.floats);
  const int t = static_cast<int>(threadIdx.x);
  if (t == 0) s[0] = 0.0f;
  __syncthreads();
  s.AtomicAdd(0, 1.0f);
  if (kBarrier) __syncthreads();
  out[t] = s[0];
}

TEST(SharedMemoryTest, AtomicsRaceWithPlainAccessesOnly) {
  for (const float count : ResultOf<Counts<true>>()) EXPECT_EQ(count, kThreads);
  ExpectFault<Counts<false>>(HasSubstr("race: thread"));
}

// ---- Barriers -----------------------------------------------------------------------------------

__global__ void BarrierForSome(float* out, Arrays /*arrays*/) {
  if (threadIdx.x < 50) __syncthreads();
  out[threadIdx.x] = 0.0f;
}
__global__ void TwoBarriers(float* out, Arrays /*arrays*/) {
  // NOLINTNEXTLINE(bugprone-branch-clone): two barriers, and a thread reaches one
  if (threadIdx.x < 50) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 0.0f;
}
__global__ void ABarrierAgainstAWarp(float* out, Arrays /*arrays*/) {
  if (threadIdx.x < 16) __syncthreads();
  __syncwarp();
  out[threadIdx.x] = 0.0f;
}
__global__ void OneBarrierTooFew(float* out, Arrays /*arrays*/) {
  const int rounds = threadIdx.x < 32 ? 3 : 2;
  for (int i = 0; i < rounds; ++i) __syncthreads();
  out[threadIdx.x] = 0.0f;
}

TEST(BarrierTest, ABarrierThatNotAllThreadsReachIsCaughtInEveryOrder) {
  ExpectFault<BarrierForSome>(
      AllOf(HasSubstr("divergent barrier: not all threads reach it"),
            HasSubstr("thread 0 waits at the barrier shared_memory_test.cc:"),
            HasSubstr("thread 50 has returned")));
  ExpectFault<TwoBarriers>(HasSubstr("divergent barrier: threads wait at different ones"));
  ExpectFault<OneBarrierTooFew>(HasSubstr("divergent barrier: not all threads reach it"));
  ExpectFault<ABarrierAgainstAWarp>(HasSubstr("warp divergence: lanes of a mask never meet"));
}

TEST(BarrierTest, ASkippedBarrierIsAsIfItWereDeleted) {
  simt::Machine& machine = simt::Machine::Instance();
  machine.skip_file = "shared_memory_test.cc";
  std::vector<float> out;
  int caught = 0;
  for (uint32_t line = 1; line < 120; ++line) {  // Reverse has two
    machine.skip_line = line;
    if (RunKernel<Reverse>(&out) != cudaSuccess) {
      EXPECT_THAT(machine.TakeFault(), AnyOf(HasSubstr("race"), HasSubstr("uninitialized")));
      ++caught;
    }
  }
  machine.skip_line = 0;
  EXPECT_EQ(caught, 2);
}

TEST(SharedMemoryTest, TheNextBlockDoesNotSeeWhatTheLastOneWrote) {
  std::vector<float> out;
  ASSERT_EQ(RunKernel<Reverse>(&out), cudaSuccess);
  ExpectFault<ReadsWhatNobodyWrote>(HasSubstr("s[40]"));
}

}  // namespace
}  // namespace asymserve
