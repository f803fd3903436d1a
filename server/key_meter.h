#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "config/api_keys.h"
#include "server/server_metrics.h"

namespace asymserve {

/// An amount that refills at a steady rate up to a capacity. It may be overdrawn.
class TokenBucket {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Full at first; afterwards what is in it stays, as far as it fits. Per second, over 0.
  void Configure(double rate, double capacity, Time now);
  /// Seconds until there is `amount`; 0: it is there.
  double Wait(double amount, Time now);
  void Take(double amount, Time now);

 private:
  void Refill(Time now);

  double rate_ = 0, capacity_ = 0, content_ = 0;
  Time time_ = {};
};

/// Counts the calls of one key against its limits. Any thread.
class KeyMeter {
 public:
  using Time = TokenBucket::Time;
  struct Exceeded {
    Rejection reason;
    std::string message;
    std::chrono::milliseconds retry_after;
  };

  KeyMeter(const ApiKeyLimits& limits, Time now) { Configure(limits, now); }

  /// New limits for what was counted so far.
  void Configure(const ApiKeyLimits& limits, Time now);
  /// Admits a call, which Leave ends, or says which limit it exceeds. A second's worth of requests,
  /// one at least, may come at once. Calls that generate need a token left of the last minute's;
  /// how many they take is known when they end, so that the next ones wait for it.
  std::optional<Exceeded> Enter(bool generates, Time now);
  void Leave(int64_t tokens, Time now);

 private:
  std::mutex mutex_;
  // Guarded by mutex_.
  ApiKeyLimits limits_;
  TokenBucket requests_, tokens_;
  int64_t open_ = 0;
};

/// A call that was admitted.
class KeyUse {
 public:
  KeyUse() = default;
  explicit KeyUse(std::shared_ptr<KeyMeter> meter) : meter_(std::move(meter)) {}
  KeyUse(const KeyUse&) = delete;
  KeyUse& operator=(const KeyUse&) = delete;
  KeyUse(KeyUse&&) noexcept = default;
  KeyUse& operator=(KeyUse&&) noexcept = default;
  ~KeyUse() { End(0); }

  /// The call has ended, and took so many tokens. Only the first call counts.
  void End(int64_t tokens) {
    if (meter_ != nullptr) meter_->Leave(tokens, std::chrono::steady_clock::now());
    meter_ = nullptr;
  }

 private:
  std::shared_ptr<KeyMeter> meter_;
};

}  // namespace asymserve
