#include "engine/base/kernel_memory.h"

#include <malloc.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string_view>

#include "absl/status/status.h"

namespace asymserve {
namespace {

/// "7f60-7f70 rw-p ...": the head of a mapping.
bool ParseHead(const std::string& line, AddressRange& range) {
  const size_t dash = line.find('-');
  const size_t blank = line.find(' ');
  if (dash == std::string::npos || blank == std::string::npos || dash == 0 || dash > blank) {
    return false;
  }
  char* end = nullptr;
  range.begin = std::strtoull(line.c_str(), &end, 16);
  if (end != line.c_str() + dash) return false;
  range.end = std::strtoull(line.c_str() + dash + 1, &end, 16);
  return end == line.c_str() + blank;
}

/// "Rss:    12 kB" in bytes; 0 for another key.
int64_t Field(const std::string& line, std::string_view key) {
  if (line.compare(0, key.size(), key) != 0) return 0;
  return std::strtoll(line.c_str() + key.size(), nullptr, 10) * 1024;
}

std::vector<KernelMemory> Parse(std::istream& smaps,
                                std::span<const std::vector<AddressRange>> sets) {
  std::vector<KernelMemory> sums(sets.size());
  KernelMemory* current = nullptr;
  std::string line;
  while (std::getline(smaps, line)) {
    AddressRange mapping;
    if (ParseHead(line, mapping)) {
      current = nullptr;
      for (size_t i = 0; i < sets.size(); ++i) {
        for (const AddressRange& range : sets[i]) {
          if (mapping.begin >= range.begin && mapping.end <= range.end) current = &sums[i];
        }
      }
    } else if (current != nullptr) {
      current->mapped_bytes += Field(line, "Size:");
      current->resident_bytes += Field(line, "Rss:");
    }
  }
  return sums;
}

}  // namespace

std::vector<KernelMemory> ParseKernelMemory(const std::string& smaps,
                                            std::span<const std::vector<AddressRange>> sets) {
  std::istringstream stream(smaps);
  return Parse(stream, sets);
}

absl::StatusOr<std::vector<KernelMemory>> ReadKernelMemory(
    std::span<const std::vector<AddressRange>> sets) {
  std::ifstream smaps("/proc/self/smaps");
  if (!smaps) return absl::UnavailableError("/proc/self/smaps: cannot be read");
  return Parse(smaps, sets);
}

int64_t ProcessResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  return statm >> size >> resident ? resident * sysconf(_SC_PAGESIZE) : 0;
}

int64_t ProcessAnonymousBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  int64_t of_files = 0;
  if (!(statm >> size >> resident >> of_files)) return 0;
  return (resident - of_files) * sysconf(_SC_PAGESIZE);
}

void TrimHeap() {
  malloc_trim(0);
}

}  // namespace asymserve
