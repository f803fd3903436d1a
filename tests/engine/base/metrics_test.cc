#include "engine/base/metrics.h"

#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace asymserve {
namespace {

TEST(MetricsTest, BoundsRiseStrictly) {
  const auto rise = [](const auto& bounds) {
    return std::adjacent_find(bounds.begin(), bounds.end(),
                              [](double a, double b) { return a >= b; }) == bounds.end();
  };
  EXPECT_TRUE(rise(LatencyHistogram::bounds()));
  EXPECT_TRUE(rise(LossHistogram::bounds()));
}

TEST(MetricsTest, AnObservationCountsInTheFirstBucketWhoseBoundIsNotBelowIt) {
  for (size_t i = 0; i < kLatencyBounds.size(); ++i) {
    LatencyHistogram histogram;
    histogram.Observe(kLatencyBounds[i]);
    histogram.Observe(kLatencyBounds[i] * (1 + 1e-12));
    EXPECT_EQ(histogram.bucket(i), 1u) << kLatencyBounds[i];
    EXPECT_EQ(histogram.bucket(i + 1), 1u) << kLatencyBounds[i];
    EXPECT_EQ(histogram.count(), 2u);
  }
}

TEST(MetricsTest, ZeroCountsInTheFirstBucketAndAnHourInTheLast) {
  LatencyHistogram histogram;
  histogram.Observe(0);
  histogram.Observe(3600);
  EXPECT_EQ(histogram.bucket(0), 1u);
  EXPECT_EQ(histogram.bucket(kLatencyBounds.size()), 1u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 3600);
}

TEST(MetricsTest, ALossBelowZeroByRoundingCountsAsNone) {
  LossHistogram histogram;
  histogram.Observe(-1e-9);
  histogram.Observe(0.02);
  histogram.Observe(1000);
  EXPECT_EQ(histogram.bucket(0), 1u);
  EXPECT_EQ(histogram.bucket(5), 1u);
  EXPECT_EQ(histogram.bucket(LossHistogram::bounds().size()), 1u);
  EXPECT_DOUBLE_EQ(histogram.sum(), 1000.02);
}

TEST(MetricsTest, TheSumIsThatOfTheObservationsToANanosecondEach) {
  LatencyHistogram histogram;
  double sum = 0;
  for (int i = 0; i < 1000; ++i) {
    const double seconds = 0.001 * i + 1e-7;
    histogram.Observe(seconds);
    sum += seconds;
  }
  EXPECT_NEAR(histogram.sum(), sum, 1000 * 1e-9);
}

TEST(MetricsTest, ConcurrentUpdatesAreAllCounted) {
  constexpr int kThreads = 4;
  constexpr int kUpdates = 5000;
  Counter counter;
  Gauge gauge;
  LatencyHistogram histogram;
  std::vector<std::thread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      for (int i = 0; i < kUpdates; ++i) {
        counter.Add(3);
        gauge.Add(i % 2 == 0 ? 5 : -4);
        histogram.Observe(0.5);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter.value(), uint64_t{3} * kThreads * kUpdates);
  EXPECT_EQ(gauge.value(), kThreads * kUpdates / 2);
  EXPECT_EQ(histogram.count(), uint64_t{kThreads} * kUpdates);
  EXPECT_DOUBLE_EQ(histogram.sum(), 0.5 * kThreads * kUpdates);
}

TEST(MetricsTest, AGaugeGoesBelowZeroAndBack) {
  Gauge gauge;
  gauge.Set(3);
  gauge.Add(-5);
  EXPECT_EQ(gauge.value(), -2);
}

}  // namespace
}  // namespace asymserve
