#include "engine/backend/cpu/cpu_memory.h"

#include <vector>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"

namespace asymserve {

CpuMemory::CpuMemory() {
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    regions_[i] = std::make_shared<MemoryRegion>(
        absl::StrCat("asymserve_", MemoryClassName(static_cast<MemoryClass>(i))));
  }
}

MemoryBytes CpuMemory::mapped() const {
  MemoryBytes mapped;
  for (size_t i = 0; i < kMemoryClasses; ++i) mapped.bytes[i] = regions_[i]->mapped_bytes();
  return mapped;
}

absl::StatusOr<MemoryUse> CpuMemory::Measure() const {
  std::vector<std::vector<AddressRange>> sets;
  for (const std::shared_ptr<MemoryRegion>& region : regions_) sets.push_back(region->ranges());
  ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<KernelMemory> measured, ReadKernelMemory(sets));
  MemoryUse use;
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    use.mapped.bytes[i] = measured[i].mapped_bytes;
    use.resident.bytes[i] = measured[i].resident_bytes;
  }
  return use;
}

}  // namespace asymserve
