#include "engine/base/thread_pool.h"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryChunkExactlyOnce) {
  ThreadPool pool(GetParam());
  for (const int chunks : {0, 1, 2, 3, GetParam() - 1, GetParam(), GetParam() + 1, 97, 1001}) {
    std::vector<std::atomic<int>> runs(static_cast<size_t>(chunks));
    pool.ParallelFor(chunks, [&](int chunk, int) { ++runs[static_cast<size_t>(chunk)]; });
    for (int chunk = 0; chunk < chunks; ++chunk) {
      ASSERT_EQ(runs[static_cast<size_t>(chunk)], 1) << "chunk " << chunk << " of " << chunks;
    }
  }
}

TEST_P(ThreadPoolTest, RunsNothingForNoChunks) {
  ThreadPool pool(GetParam());
  int runs = 0;
  pool.ParallelFor(0, [&](int, int) { ++runs; });
  pool.ParallelFor(-5, [&](int, int) { ++runs; });
  EXPECT_EQ(runs, 0);
}

TEST_P(ThreadPoolTest, NeverRunsTwoChunksAtOnceUnderTheSameThreadNumber) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<bool>> busy(static_cast<size_t>(GetParam()));
  std::atomic<int> violations{0};
  for (int region = 0; region < 50; ++region) {
    pool.ParallelFor(37, [&](int, int thread) {
      if (thread < 0 || thread >= pool.threads()) {
        ++violations;
        return;
      }
      auto& flag = busy[static_cast<size_t>(thread)];
      if (flag.exchange(true)) ++violations;
      std::this_thread::yield();
      flag.store(false);
    });
  }
  EXPECT_EQ(violations, 0);
}

// Each region reads what the one before wrote, without any synchronization but the pool's.
TEST_P(ThreadPoolTest, MakesTheWritesOfARegionVisibleToTheNext) {
  ThreadPool pool(GetParam());
  constexpr int kChunks = 11;
  std::vector<int64_t> values(kChunks, 0), next(kChunks, 0);
  constexpr int kRegions = 3000;
  for (int region = 0; region < kRegions; ++region) {
    pool.ParallelFor(kChunks, [&](int chunk, int) {
      next[static_cast<size_t>(chunk)] = values[static_cast<size_t>((chunk + 1) % kChunks)] + 1;
    });
    std::swap(values, next);
  }
  for (const int64_t value : values) EXPECT_EQ(value, kRegions);
}

// Regions of different bodies and sizes in quick succession: a worker that wakes late must not take
// a chunk of a region that it did not see begin.
TEST_P(ThreadPoolTest, NeverMixesRegionsThatFollowEachOther) {
  ThreadPool pool(GetParam());
  std::atomic<int> wrong{0};
  for (int region = 0; region < 3000; ++region) {
    const int chunks = 2 + region % 5;
    std::atomic<int> sum{0};
    pool.ParallelFor(chunks, [&, region, chunks](int chunk, int) {
      if (chunk < 0 || chunk >= chunks) ++wrong;
      sum += region + chunk;
    });
    ASSERT_EQ(sum, chunks * region + chunks * (chunks - 1) / 2) << "region " << region;
  }
  EXPECT_EQ(wrong, 0);
}

TEST_P(ThreadPoolTest, WakesWorkersThatHaveParked) {
  ThreadPool pool(GetParam());
  for (int region = 0; region < 20; ++region) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // far beyond the spin
    std::atomic<int> runs{0};
    pool.ParallelFor(2 * GetParam(), [&](int, int) { ++runs; });
    ASSERT_EQ(runs, 2 * GetParam());
  }
}

TEST_P(ThreadPoolTest, EndsWhetherItsWorkersSpinOrSleepOrNeverWorked) {
  for (int round = 0; round < 20; ++round) {
    auto pool = std::make_unique<ThreadPool>(GetParam());
    std::atomic<int> runs{0};
    if (round % 3 != 0) pool->ParallelFor(5, [&](int, int) { ++runs; });
    if (round % 3 == 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    pool.reset();
    EXPECT_EQ(runs, round % 3 != 0 ? 5 : 0);
  }
}

// What a thread fetches ahead it should read itself.
TEST_P(ThreadPoolTest, AThreadTakesNeighbouringChunksInOrder) {
  ThreadPool pool(GetParam());
  constexpr int kChunks = 101;
  std::vector<std::vector<int>> taken(static_cast<size_t>(GetParam()));
  pool.ParallelFor(kChunks, [&](int chunk, int thread) {
    taken[static_cast<size_t>(thread)].push_back(chunk);
    std::this_thread::yield();
  });
  for (const std::vector<int>& chunks : taken) {
    for (size_t i = 1; i < chunks.size(); ++i) {
      // Its own share, then those that follow, the first behind the last.
      const bool wrapped = chunks[i] < chunks[0] && chunks[i - 1] >= chunks[0];
      EXPECT_TRUE(chunks[i] > chunks[i - 1] || wrapped) << chunks[i - 1] << ", " << chunks[i];
    }
  }
}

// One thread, as many as the test machine's cores, and more than any core can run at once.
INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 3, 8, 33));

TEST(ThreadPoolTest, ASlowChunkDoesNotKeepOthersFromRunning) {
  ThreadPool pool(2);
  std::atomic<int> fast{0};
  // Chunk 0 waits for all others: whoever holds it, the other thread has to run the rest.
  pool.ParallelFor(9, [&](int chunk, int) {
    if (chunk != 0) {
      ++fast;
      return;
    }
    while (fast.load() < 8) std::this_thread::yield();
  });
  EXPECT_EQ(fast, 8);
}

}  // namespace
}  // namespace asymserve
