#include "engine/runtime/host_memory.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

namespace asymserve {
namespace {

// The first number in a file; nothing for "max", an absent or an unreadable file.
std::optional<int64_t> ReadNumber(const std::string& path) {
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

// Of the used bytes of a group, those of files that the kernel gives up when there is need.
int64_t FileCache(const std::string& folder) {
  std::ifstream file(folder + "/memory.stat");
  int64_t cache = 0;
  std::string key;
  int64_t bytes = 0;
  while (file >> key >> bytes) {
    if (key == "inactive_file" || key == "active_file") cache += bytes;
  }
  return cache;
}

// What the limit of one group leaves; nothing where there is none.
std::optional<int64_t> RoomOf(const std::string& folder) {
  std::optional<int64_t> limit = ReadNumber(folder + "/memory.max");
  std::optional<int64_t> used = ReadNumber(folder + "/memory.current");
  if (!limit) {
    limit = ReadNumber(folder + "/memory.limit_in_bytes");
    used = ReadNumber(folder + "/memory.usage_in_bytes");
  }
  if (!limit || !used) return std::nullopt;
  return std::clamp<int64_t>(*limit - *used + FileCache(folder), 0, *limit);
}

// The groups of this process, by /proc/self/cgroup (ID:CONTROLLERS:PATH, no controllers in version
// 2). A path that is not there is that of the host, seen from within a container: the root is ours.
std::vector<std::string> CgroupFolders() {
  std::vector<std::string> folders = {"/sys/fs/cgroup", "/sys/fs/cgroup/memory"};
  std::ifstream file("/proc/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find(",memory,") == std::string::npos) continue;
    const std::string root = v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    std::string path = line.substr(second + 1);
    while (path.size() > 1) {  // it and all that contain it
      folders.push_back(root + path);
      path.erase(path.rfind('/'));
    }
  }
  return folders;
}

std::optional<int64_t> CgroupRoom() {
  std::optional<int64_t> least;
  for (const std::string& folder : CgroupFolders()) {
    const std::optional<int64_t> room = RoomOf(folder);
    if (room) least = std::min(*room, least.value_or(*room));
  }
  return least;
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
