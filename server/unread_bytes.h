#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace asymserve {

/// Bytes of answers that wait in memory for their clients to read them, of all calls together. Any
/// thread; outlives its shares.
class UnreadBytes {
 public:
  /// Answers up to this size do not count: every call has buffers of about that size anyway.
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
    if (bytes <= kSmall) return Share(this, GiveBack{0});
    int64_t used = used_.load();
    while (bytes <= limit_ - used) {
      if (used_.compare_exchange_weak(used, used + bytes)) return Share(this, GiveBack{bytes});
    }
    return nullptr;
  }

 private:
  const int64_t limit_;
  std::atomic<int64_t> used_{0};
};

}  // namespace asymserve
