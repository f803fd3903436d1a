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

/// A histogram of seconds over kLatencyBounds (the last bucket has no upper bound).
class LatencyHistogram {
 public:
  /// A negative or NaN duration counts as 0: clocks of different threads may disagree a little.
  void Observe(double seconds) {
    if (!(seconds > 0)) seconds = 0;
    size_t bucket = 0;
    while (bucket < kLatencyBounds.size() && seconds > kLatencyBounds[bucket]) ++bucket;
    buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_ns_.fetch_add(static_cast<uint64_t>(seconds * 1e9), std::memory_order_relaxed);
  }
  /// Observations at or under bound `bucket` and over the one before; kLatencyBounds.size() is the
  /// rest.
  uint64_t bucket(size_t bucket) const { return buckets_[bucket].load(std::memory_order_relaxed); }
  double sum_seconds() const {
    return static_cast<double>(sum_ns_.load(std::memory_order_relaxed)) * 1e-9;
  }
  uint64_t count() const {
    uint64_t total = 0;
    for (const auto& bucket : buckets_) total += bucket.load(std::memory_order_relaxed);
    return total;
  }

 private:
  std::array<std::atomic<uint64_t>, kLatencyBounds.size() + 1> buckets_{};
  std::atomic<uint64_t> sum_ns_{0};
};

}  // namespace asymserve
