#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

// What the kernel counts of this process, from /proc. Any thread.

namespace asymserve {

/// Addresses [begin, end), both at page boundaries.
struct AddressRange {
  uintptr_t begin = 0;
  uintptr_t end = 0;
};

struct KernelMemory {
  int64_t mapped_bytes = 0;
  int64_t resident_bytes = 0;

  friend bool operator==(const KernelMemory&, const KernelMemory&) = default;
};

/// What /proc/self/smaps says of each set of ranges: the sums over the mappings that lie within
/// them. Unavailable when it cannot be read.
absl::StatusOr<std::vector<KernelMemory>> ReadKernelMemory(
    std::span<const std::vector<AddressRange>> sets);

/// The same for text in the format of smaps; exposed for tests.
std::vector<KernelMemory> ParseKernelMemory(const std::string& smaps,
                                            std::span<const std::vector<AddressRange>> sets);

/// Bytes of this process that are in memory, of files too; 0 if that cannot be read.
int64_t ProcessResidentBytes();
/// Those of them that are not pages of files, which the system can take back; 0 likewise.
int64_t ProcessAnonymousBytes();

/// Gives back to the system what the heap holds and does not use. Takes milliseconds.
void TrimHeap();

}  // namespace asymserve
