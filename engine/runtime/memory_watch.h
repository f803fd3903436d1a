#pragma once

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/memory_planner.h"

namespace asymserve {

/// What was planned and what the system counts.
struct MemoryReport {
  MemoryBytes planned;
  MemoryUse measured;
  int64_t runtime_bound = 0;
  std::optional<DeviceRoom> room;  // where the backend's memory is a device's
  int64_t process_resident = 0;
  /// Of the process, beside the backend's memory.
  int64_t runtime_resident() const { return process_resident - measured.resident.total(); }
};

/// Compares a plan with the memory of a backend, which outlives it. Any thread.
class MemoryWatch {
 public:
  MemoryWatch(const Backend& backend, const MemoryPlan& plan);

  /// Reads the kernel's books, which takes milliseconds, no more often than every five seconds.
  absl::StatusOr<MemoryReport> Report();
  const MemoryLedger& ledger() const { return ledger_; }
  /// As MemoryPlan has it.
  int64_t host_bytes() const { return host_bytes_; }

  /// Gives back what a burst left in the heap when the rest of the process takes more than planned.
  /// Does nothing within five seconds of the last time.
  void Trim();

 private:
  const Backend& backend_;
  const MemoryLedger ledger_;
  const int64_t host_bytes_;
  std::mutex mutex_;
  MemoryReport report_;  // guarded by mutex_
  // Guarded by mutex_: when to read again, and when to look for heap to trim.
  std::chrono::steady_clock::time_point next_ = {}, next_trim_ = {};
};

}  // namespace asymserve
