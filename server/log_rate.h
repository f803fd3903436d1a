#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>

namespace asymserve {

/// How many lines of one kind are written to the log, of a kind that strangers can cause as often
/// as they like: so that they do not rotate away what others wrote. Any thread.
class LogRate {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr double kBurst = 200;
  static constexpr double kPerSecond = 5;

  /// Whether one more line may be written; it says how many were left out since the last one.
  std::optional<int64_t> Admit(Clock::time_point now) {
    const std::lock_guard lock(mutex_);
    const std::chrono::duration<double> passed = now - last_;
    last_ = now;
    lines_ = std::min(lines_ + kPerSecond * passed.count(), kBurst);
    if (lines_ < 1) {
      ++left_out_;
      return std::nullopt;
    }
    --lines_;
    return std::exchange(left_out_, 0);
  }

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  Clock::time_point last_ = Clock::now();
  double lines_ = kBurst;
  int64_t left_out_ = 0;
};

}  // namespace asymserve
