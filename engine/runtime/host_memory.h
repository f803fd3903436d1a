#pragma once

#include <cstdint>
#include <string>

namespace asymserve {

/// Where the kernel says what a process may use.
struct HostFiles {
  std::string sys = "/sys";
  std::string proc = "/proc";
};

/// Bytes this process may still use: the smaller of the kernel's MemAvailable and what the limits
/// of its cgroup (v2 memory.max or v1) and of those around it leave. 0 if neither can be read.
int64_t AvailableHostMemoryBytes(const HostFiles& files = {});

/// Bytes this process could ever use: the smaller of all of the machine's memory and the limits of
/// these cgroups. 0 if neither can be read.
int64_t HostMemoryLimitBytes(const HostFiles& files = {});

/// Cores this process may use: its affinity, lowered by the CPU quotas (v2 cpu.max, v1
/// cfs_quota_us) of its cgroup and of those around it, at least 1.
int32_t AvailableCores(const HostFiles& files = {});

}  // namespace asymserve
