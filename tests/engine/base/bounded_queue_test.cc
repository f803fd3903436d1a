#include "engine/base/bounded_queue.h"

#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

TEST(BoundedQueueTest, GivesItemsInTheOrderTheyCame) {
  BoundedQueue<int> queue(3);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(queue.Push(int{i}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(queue.Pop(), i);
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueueTest, RefusesAnItemBeyondItsCapacityAndLeavesItUntouched) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  EXPECT_TRUE(queue.Push(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(queue.Push(std::move(second)));
  ASSERT_NE(second, nullptr);  // NOLINT(bugprone-use-after-move): Push says it is untouched
  EXPECT_EQ(*second, 2);
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_EQ(**queue.TryPop(), 1);
  EXPECT_TRUE(queue.Push(std::move(second)));
}

TEST(BoundedQueueTest, RefusesEverythingWithoutCapacity) {
  BoundedQueue<int> queue(0);
  EXPECT_FALSE(queue.Push(1));
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

TEST(BoundedQueueTest, GivesWhatWasQueuedBeforeItWasClosedAndThenNothing) {
  BoundedQueue<int> queue(4);
  EXPECT_TRUE(queue.Push(1));
  EXPECT_TRUE(queue.Push(2));
  queue.Close();
  EXPECT_FALSE(queue.Push(3));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.TryPop(), 2);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueueTest, CloseWakesAWaitingConsumer) {
  BoundedQueue<int> queue(1);
  std::optional<int> got = 7;
  std::thread consumer([&] { got = queue.Pop(); });
  queue.Close();
  consumer.join();
  EXPECT_EQ(got, std::nullopt);
}

TEST(BoundedQueueTest, LosesNoItemOfManyProducersAndKeepsTheOrderOfEach) {
  constexpr int kProducers = 5;
  constexpr int kItems = 3001;
  BoundedQueue<std::pair<int, int>> queue(7);
  std::vector<std::thread> producers;
  for (int producer = 0; producer < kProducers; ++producer) {
    producers.emplace_back([&queue, producer] {
      for (int i = 0; i < kItems; ++i) {
        while (!queue.Push({producer, i})) std::this_thread::yield();
      }
    });
  }
  std::vector<int> next(kProducers, 0);
  for (int taken = 0; taken < kProducers * kItems; ++taken) {
    const auto item = queue.Pop();
    ASSERT_TRUE(item.has_value());
    EXPECT_LE(queue.size(), 7u);
    EXPECT_EQ(item->second, next[static_cast<size_t>(item->first)]++);
  }
  for (std::thread& producer : producers) producer.join();
  EXPECT_EQ(queue.TryPop(), std::nullopt);
}

}  // namespace
}  // namespace asymserve
