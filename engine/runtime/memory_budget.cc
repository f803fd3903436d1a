#include "engine/runtime/memory_budget.h"

#include "absl/strings/str_cat.h"

#include "engine/base/kernel_memory.h"
#include "engine/base/status.h"
#include "engine/runtime/host_memory.h"

namespace asymserve {
namespace {

constexpr int64_t kHostRounding = 8192;                // whole pages of memory
constexpr int64_t kMostPage = int64_t{64} << 10;       // kernels round limits down to a page
constexpr int64_t kDeviceRounding = int64_t{2} << 20;  // a device's are larger
/// Of the process, what a driver takes for a device: pinned memory and its own state.
constexpr int64_t kDriverBytes = int64_t{512} << 20;

std::string Bytes(int64_t bytes) {
  return absl::StrCat(bytes, " bytes (", ReadableBytes(bytes), ")");
}

}  // namespace

absl::StatusOr<MemoryBudget> FindMemoryBudget(const Backend& backend, int64_t memory_bytes) {
  MemoryBudget budget;
  ASYMSERVE_ASSIGN_OR_RETURN(budget.room, backend.Room());
  budget.bytes = memory_bytes;
  budget.option = "engine.memory_bytes";
  if (budget.room.has_value()) {
    const DeviceRoom& room = *budget.room;
    if (memory_bytes > room.free_bytes) {
      return absl::InvalidArgumentError(
          absl::StrCat("engine.memory_bytes: ", Bytes(memory_bytes), "; of the ",
                       Bytes(room.total_bytes), " of ", std::string(backend.name()), " ",
                       Bytes(room.free_bytes), " are free: lower it, or stop what has the rest"));
    }
    if (memory_bytes == 0) {
      budget.bytes = room.free_bytes;
      budget.option = "engine.memory_bytes = 0 (what is free on the device)";
    }
  } else if (memory_bytes == 0) {
    // What is resident already is part of the process, too.
    budget.bytes = AvailableHostMemoryBytes() + ProcessAnonymousBytes();
    budget.option = "engine.memory_bytes = 0 (what is available)";
  } else if (const int64_t limit = HostMemoryLimitBytes();
             limit > 0 && memory_bytes >= limit + kMostPage) {
    return absl::InvalidArgumentError(absl::StrCat(
        "engine.memory_bytes: ", Bytes(memory_bytes), "; this process can have ", Bytes(limit),
        " (the machine's memory, or the limit of its cgroup): lower it, or raise the limit"));
  }
  return budget;
}

void SetBudget(const MemoryBudget& budget, const RuntimeShape& runtime, MemoryRequest& request) {
  request.memory_bytes = budget.bytes;
  request.memory_option = budget.option;
  request.arena_rounding_bytes = budget.room.has_value() ? kDeviceRounding : kHostRounding;
  if (budget.room.has_value()) return;
  request.runtime_bytes = RuntimeBound(runtime);
  request.runtime_bytes_per_sequence = RuntimePerRequest(runtime.context_tokens);
}

absl::StatusOr<int64_t> PlanHostMemory(const MemoryBudget& budget, const RuntimeShape& runtime,
                                       int64_t max_running) {
  if (!budget.room.has_value()) return 0;
  const int64_t bound = RuntimeBound(runtime) +
                        RuntimePerRequest(runtime.context_tokens) * max_running + kDriverBytes;
  const int64_t available = AvailableHostMemoryBytes() + ProcessAnonymousBytes();
  if (available > 0 && available < bound) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "host memory: ", Bytes(available), " are available; the process may take up to ",
        Bytes(bound),
        " of it beside the device's (threads, the requests of engine.max_running and max_waiting, "
        "the driver): lower those or give it more"));
  }
  return bound;
}

absl::Status CheckRoomForArena(const Backend& backend, const MemoryBudget& budget,
                               const MemoryPlan& plan) {
  if (!budget.room.has_value()) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(const std::optional<DeviceRoom> now, backend.Room());
  const MemoryLedger& ledger = plan.ledger;
  const int64_t taken = backend.CountedMemory().total();
  const int64_t planned = ledger[LedgerRow::kWeights] + ledger[LedgerRow::kTables] +
                          ledger[LedgerRow::kWorkspace] + ledger.kv_bytes();
  const int64_t wanted = planned - taken;
  if (now->free_bytes >= wanted) return absl::OkStatus();
  const int64_t elsewhere = budget.room->free_bytes - taken - now->free_bytes;
  const int64_t most = taken + now->free_bytes + ledger[LedgerRow::kMargin];
  return absl::ResourceExhaustedError(absl::StrCat(
      "device memory: the plan was made when ", Bytes(budget.room->free_bytes), " were free; ",
      taken, " are taken by weights, tables and workspace, and the KV cache needs ", Bytes(wanted),
      " more, but ", Bytes(now->free_bytes), " are free: ", elsewhere,
      " bytes went elsewhere since (another process, or the driver). Stop it, or set "
      "engine.memory_bytes to ",
      most, " or less"));
}

}  // namespace asymserve
