#pragma once

#include <cstdint>

namespace asymserve {

/// Bytes this process may still use: the smaller of the kernel's MemAvailable and what the limits
/// of its cgroup (v2 memory.max or v1) and of those around it leave. 0 if neither can be read.
int64_t AvailableHostMemoryBytes();

/// Cores this process may use: its affinity, lowered by the cgroup's CPU quota, at least 1.
int32_t AvailableCores();

}  // namespace asymserve
