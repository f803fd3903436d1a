#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

// Plain atomics that the engine moves and the server's exporter reads; no Prometheus here. Any
// thread, relaxed order: a scrape may see one metric before another.

namespace asymserve {

class Counter {
 public:
  void Add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

class Gauge {
 public:
  void Set(int64_t value) { value_.store(value, std::memory_order_relaxed); }
  void Add(int64_t n) { value_.fetch_add(n, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

/// Upper bounds in seconds, 50 us to 120 s: fine enough for refusals under a millisecond and
/// inter-token gaps under 10 ms.
inline constexpr std::array<double, 26> kLatencyBounds = {
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.002, 0.003, 0.004, 0.006,
    0.008,   0.010,  0.015,   0.025,  0.040, 0.060, 0.100, 0.150, 0.250,
    0.500,   1.0,    2.0,     5.0,    10.0,  30.0,  60.0,  120.0};

/// Upper bounds of KL divergences in nats, from what rounding makes to what nobody would serve.
inline constexpr std::array<double, 12> kLossBounds = {0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03,
                                                       0.1,    0.3,    1.0,   3.0,   10.0, 30.0};

/// A histogram over kBounds, which ascend (the last bucket has no upper bound).
template <const auto& kBounds>
class Histogram {
 public:
  static constexpr const auto& bounds() { return kBounds; }

  /// A negative or NaN value counts as 0: clocks of different threads may disagree a little, and so
  /// do roundings of equal distributions.
  void Observe(double value) {
    if (!(value > 0)) value = 0;
    size_t bucket = 0;
    while (bucket < kBounds.size() && value > kBounds[bucket]) ++bucket;
    buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_billionths_.fetch_add(static_cast<uint64_t>(value * 1e9), std::memory_order_relaxed);
  }
  /// Observations at or under bound `bucket` and over the one before; bounds().size() is the rest.
  uint64_t bucket(size_t bucket) const { return buckets_[bucket].load(std::memory_order_relaxed); }
  double sum() const {
    return static_cast<double>(sum_billionths_.load(std::memory_order_relaxed)) * 1e-9;
  }
  uint64_t count() const {
    uint64_t total = 0;
    for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
    return total;
  }

 private:
  std::array<std::atomic<uint64_t>, kBounds.size() + 1> buckets_{};
  std::atomic<uint64_t> sum_billionths_{0};
};

using LatencyHistogram = Histogram<kLatencyBounds>;  // seconds
using LossHistogram = Histogram<kLossBounds>;        // nats

}  // namespace asymserve
