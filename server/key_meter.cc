#include "server/key_meter.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace asymserve {
namespace {

constexpr double kMinute = 60;
constexpr double kRounding = 1e-6;      // seconds
constexpr double kConcurrentRetry = 1;  // seconds; nobody knows when a call will end

std::chrono::milliseconds ToMilliseconds(double seconds) {
  constexpr double kMax = 3600;
  return std::chrono::milliseconds(
      std::llround(std::ceil((std::min(seconds, kMax) - kRounding) * 1e3)));
}

}  // namespace

void TokenBucket::Configure(double rate, double capacity, Time now) {
  if (rate_ > 0) {
    Refill(now);
    content_ = std::min(content_, capacity);
  } else {
    content_ = capacity;
  }
  rate_ = rate;
  capacity_ = capacity;
  time_ = now;
}

void TokenBucket::Refill(Time now) {
  const double seconds = std::chrono::duration<double>(now - time_).count();
  if (seconds <= 0) return;
  content_ = std::min(capacity_, content_ + rate_ * seconds);
  time_ = now;
}

double TokenBucket::Wait(double amount, Time now) {
  Refill(now);
  const double wait = (amount - content_) / rate_;
  return wait <= kRounding ? 0 : wait;
}

void TokenBucket::Take(double amount, Time now) {
  Refill(now);
  content_ -= amount;
}

void KeyMeter::Configure(const ApiKeyLimits& limits, Time now) {
  const std::lock_guard lock(mutex_);
  limits_ = limits;
  if (limits.requests_per_second > 0) {
    requests_.Configure(limits.requests_per_second, std::max(1.0, limits.requests_per_second), now);
  }
  if (limits.tokens_per_minute > 0) {
    tokens_.Configure(limits.tokens_per_minute / kMinute, limits.tokens_per_minute, now);
  }
}

std::optional<KeyMeter::Exceeded> KeyMeter::Enter(bool generates, Time now) {
  const std::lock_guard lock(mutex_);
  if (limits_.concurrent > 0 && open_ >= limits_.concurrent) {
    return Exceeded{Rejection::kKeyConcurrent,
                    absl::StrCat("concurrent: the key's limit is ", limits_.concurrent, " calls"),
                    ToMilliseconds(kConcurrentRetry)};
  }
  if (generates && limits_.tokens_per_minute > 0) {
    if (const double wait = tokens_.Wait(1, now); wait > 0) {
      return Exceeded{Rejection::kKeyTokens,
                      absl::StrCat("tokens_per_minute: the key's limit is ",
                                   limits_.tokens_per_minute, " tokens"),
                      ToMilliseconds(wait)};
    }
  }
  if (limits_.requests_per_second > 0) {
    if (const double wait = requests_.Wait(1, now); wait > 0) {
      return Exceeded{Rejection::kKeyRequests,
                      absl::StrCat("requests_per_second: the key's limit is ",
                                   limits_.requests_per_second, " calls"),
                      ToMilliseconds(wait)};
    }
    requests_.Take(1, now);
  }
  ++open_;
  return std::nullopt;
}

void KeyMeter::Leave(int64_t tokens, Time now) {
  const std::lock_guard lock(mutex_);
  --open_;
  if (limits_.tokens_per_minute > 0) tokens_.Take(static_cast<double>(tokens), now);
}

}  // namespace asymserve
