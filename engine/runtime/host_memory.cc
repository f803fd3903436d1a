#include "engine/runtime/host_memory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>

namespace asymserve {
namespace {

// The first number in a file; nothing for "max", an absent or an unreadable file.
std::optional<int64_t> ReadNumber(const char* path) {
  std::ifstream file(path);
  int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::optional<int64_t> MemAvailable() {
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    if (key == "MemAvailable:") return kilobytes * 1024;
    std::getline(file, unit);
  }
  // Without /proc: what is free, which leaves out what the system could reclaim.
  const int64_t pages = sysconf(_SC_AVPHYS_PAGES);
  const int64_t page_bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && page_bytes > 0) return pages * page_bytes;
  return std::nullopt;
}

// Of the used bytes, those of files that the kernel gives up when there is need.
int64_t CgroupFileCache() {
  int64_t cache = 0;
  for (const char* path : {"/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"}) {
    std::ifstream file(path);
    std::string key;
    int64_t bytes = 0;
    while (file >> key >> bytes) {
      if (key == "inactive_file" || key == "active_file") cache += bytes;
    }
    if (cache > 0) break;
  }
  return cache;
}

std::optional<int64_t> CgroupRoom() {
  std::optional<int64_t> limit = ReadNumber("/sys/fs/cgroup/memory.max");
  std::optional<int64_t> used = ReadNumber("/sys/fs/cgroup/memory.current");
  if (!limit) {
    limit = ReadNumber("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    used = ReadNumber("/sys/fs/cgroup/memory/memory.usage_in_bytes");
  }
  if (!limit || !used) return std::nullopt;
  return std::clamp<int64_t>(*limit - *used + CgroupFileCache(), 0, *limit);
}

}  // namespace

int64_t AvailableHostMemoryBytes() {
  const std::optional<int64_t> host = MemAvailable();
  const std::optional<int64_t> group = CgroupRoom();
  if (host && group) return std::min(*host, *group);
  return host.value_or(group.value_or(0));
}

int32_t AvailableCores() {
  int32_t cores = 1;
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  std::ifstream file("/sys/fs/cgroup/cpu.max");  // "quota period", or "max period"
  double quota = 0;
  double period = 0;
  if (file >> quota >> period && period > 0) {
    cores = std::min(cores, static_cast<int32_t>(std::lround(quota / period)));
  }
  return std::max(cores, 1);
}

}  // namespace asymserve
