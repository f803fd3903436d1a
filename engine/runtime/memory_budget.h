#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/kv/memory_planner.h"
#include "engine/runtime/memory_count.h"

// Whose memory a plan shares out: that of the process, or that of a device, which then holds all
// that the backend counts, while the rest of the process stays in the host's.

namespace asymserve {

struct MemoryBudget {
  int64_t bytes = 0;
  std::string option;              // that errors name
  std::optional<DeviceRoom> room;  // the device's when the plan was made; empty: the host's memory
};

/// `memory_bytes`, engine.memory_bytes, of the backend's memory; 0: what is available of it.
/// InvalidArgument when the device has less, or the host, where its memory can be read.
absl::StatusOr<MemoryBudget> FindMemoryBudget(const Backend& backend, int64_t memory_bytes);

/// Sets what depends on whose memory it is: the budget, the rest of the process, which is not in a
/// device's, and how allocations are rounded.
void SetBudget(const MemoryBudget& budget, const RuntimeShape& runtime, MemoryRequest& request);

/// A bound of what a plan for a device takes of the host's memory; ResourceExhausted when that is
/// more than there is. 0 for a plan of the host's.
absl::StatusOr<int64_t> PlanHostMemory(const MemoryBudget& budget, const RuntimeShape& runtime,
                                       int64_t max_running);

/// Before the arena is allocated: whether the device still has what the plan expects to take from
/// here on. ResourceExhausted says how much went elsewhere since the plan was made.
absl::Status CheckRoomForArena(const Backend& backend, const MemoryBudget& budget,
                               const MemoryPlan& plan);

}  // namespace asymserve
