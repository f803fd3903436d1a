#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace asymserve {

/// Bytes of answers that wait in memory for their clients to read them, of all calls together. Any
/// thread; outlives its shares.
class UnreadBytes {
 public:
  /// Smaller answers do not count: every call has buffers of that size anyway.
  static constexpr int64_t kSmall = 64 * 1024;

  explicit UnreadBytes(int64_t limit) : limit_(limit) {}

  struct GiveBack {
    int64_t bytes = 0;
    void operator()(UnreadBytes* owner) const { owner->used_.fetch_sub(bytes); }
  };
  /// `bytes` of them, until it is destroyed.
  using Share = std::unique_ptr<UnreadBytes, GiveBack>;

  /// Null when they would be more than the limit.
  Share Take(int64_t bytes) {
    const int64_t counted = bytes <= kSmall ? 0 : bytes;
    if (used_.fetch_add(counted) + counted <= limit_) return Share(this, GiveBack{counted});
    used_.fetch_sub(counted);
    return nullptr;
  }

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_{0};
};

}  // namespace asymserve
