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

// Nothing, too, for what is less than nothing.
std::optional<int64_t> ReadBytes(const std::string& path) {
  const std::optional<int64_t> bytes = ReadNumber(path);
  return bytes && *bytes >= 0 ? bytes : std::nullopt;
}

// A line of /proc/meminfo.
std::optional<int64_t> ReadMemInfo(const HostFiles& files, const std::string& wanted) {
  std::ifstream file(files.proc + "/meminfo");
  std::string key;
  int64_t kilobytes = 0;
  std::string unit;
  while (file >> key >> kilobytes) {
    if (key == wanted) return kilobytes * 1024;
    std::getline(file, unit);
  }
  return std::nullopt;
}

std::optional<int64_t> MemAvailable(const HostFiles& files) {
  if (const auto available = ReadMemInfo(files, "MemAvailable:")) return available;
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

// Nothing where there is none.
std::optional<int64_t> LimitOf(const std::string& folder) {
  const std::optional<int64_t> limit = ReadBytes(folder + "/memory.max");
  return limit ? limit : ReadBytes(folder + "/memory.limit_in_bytes");
}

// What the limit of one group leaves; nothing where there is none.
std::optional<int64_t> RoomOf(const std::string& folder) {
  const std::optional<int64_t> limit = LimitOf(folder);
  std::optional<int64_t> used = ReadBytes(folder + "/memory.current");
  if (!used) used = ReadBytes(folder + "/memory.usage_in_bytes");
  if (!limit || !used) return std::nullopt;
  const int64_t kept = std::max<int64_t>(*used - FileCache(folder), 0);
  return std::max<int64_t>(*limit - kept, 0);
}

// Cores, as many as the quota of one group allows.
std::optional<double> QuotaOf(const std::string& folder) {
  std::ifstream v2(folder + "/cpu.max");  // "quota period", or "max period"
  double quota = 0;
  double period = 0;
  if (v2 >> quota >> period && period > 0) return quota / period;
  const std::optional<int64_t> v1 = ReadNumber(folder + "/cpu.cfs_quota_us");  // -1: none
  const std::optional<int64_t> v1_period = ReadNumber(folder + "/cpu.cfs_period_us");
  if (!v1 || *v1 <= 0 || !v1_period || *v1_period <= 0) return std::nullopt;
  return static_cast<double>(*v1) / static_cast<double>(*v1_period);
}

// The groups of this process for `controller` of version 1, and those of version 2, by
// /proc/self/cgroup (ID:CONTROLLERS:PATH, no controllers in version 2). A path that is not there is
// that of the host, seen from within a container: the root is ours.
std::vector<std::string> CgroupFolders(const HostFiles& files, const std::string& controller) {
  const std::string v2_root = files.sys + "/fs/cgroup";
  const std::string v1_root = v2_root + "/" + controller;
  std::vector<std::string> folders = {v2_root, v1_root};
  std::ifstream file(files.proc + "/self/cgroup");
  std::string line;
  while (std::getline(file, line)) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool v2 = controllers == ",,";
    if (!v2 && controllers.find("," + controller + ",") == std::string::npos) continue;
    const std::string& root = v2 ? v2_root : v1_root;
    std::string path = line.substr(second + 1);
    if (!path.starts_with('/')) continue;
    while (path.size() > 1) {  // it and all that contain it
      folders.push_back(root + path);
      path.erase(path.rfind('/'));
    }
  }
  return folders;
}

// The least of what `of` says of the groups; nothing where it says nothing of any.
template <typename Of>
auto Least(const HostFiles& files, const std::string& controller, const Of& of) {
  decltype(of(controller)) least;
  for (const std::string& folder : CgroupFolders(files, controller)) {
    const auto value = of(folder);
    if (value) least = std::min(*value, least.value_or(*value));
  }
  return least;
}

int64_t Smaller(std::optional<int64_t> host, std::optional<int64_t> group) {
  if (host && group) return std::min(*host, *group);
  return host.value_or(group.value_or(0));
}

}  // namespace

int64_t AvailableHostMemoryBytes(const HostFiles& files) {
  return Smaller(MemAvailable(files), Least(files, "memory", RoomOf));
}

int64_t HostMemoryLimitBytes(const HostFiles& files) {
  return Smaller(ReadMemInfo(files, "MemTotal:"), Least(files, "memory", LimitOf));
}

int32_t AvailableCores(const HostFiles& files) {
  int32_t cores = 1;
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof(set), &set) == 0) cores = CPU_COUNT(&set);
  if (const std::optional<double> quota = Least(files, "cpu", QuotaOf)) {
    cores = static_cast<int32_t>(std::lround(std::min<double>(cores, *quota)));
  }
  return std::max(cores, 1);
}

}  // namespace asymserve
