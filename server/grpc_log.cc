#include "server/grpc_log.h"

#include <atomic>
#include <chrono>

#include "grpc/support/log.h"

#include "engine/base/log.h"

namespace asymserve {
namespace {

constexpr int64_t kIntervalMs = 10'000;

void Take(gpr_log_func_args* arguments) {
  static std::atomic<int64_t> next_ms{0};
  const int64_t now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                             std::chrono::steady_clock::now().time_since_epoch())
                             .count();
  int64_t next = next_ms.load(std::memory_order_relaxed);
  const bool warn = now_ms >= next && next_ms.compare_exchange_strong(next, now_ms + kIntervalMs);
  Log(warn ? LogLevel::kWarn : LogLevel::kDebug, "grpc", {{"message", arguments->message}});
}

}  // namespace

void TakeGrpcLog() {
  gpr_set_log_function(Take);
}

}  // namespace asymserve
