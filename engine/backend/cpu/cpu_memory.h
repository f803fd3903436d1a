#pragma once

#include <array>
#include <memory>

#include "absl/status/statusor.h"

#include "engine/backend/cpu/memory_region.h"
#include "engine/base/memory_class.h"

namespace asymserve {

/// The regions of a backend, one a class: asymserve_weights, asymserve_tables, asymserve_workspace,
/// asymserve_kv. Any thread.
class CpuMemory {
 public:
  CpuMemory();

  /// Buffers hold on to their region.
  const std::shared_ptr<MemoryRegion>& region(MemoryClass memory) const {
    return regions_[static_cast<size_t>(memory)];
  }
  /// What buffers were carved from, and what the kernel says of it.
  MemoryBytes mapped() const;
  absl::StatusOr<MemoryUse> Measure() const;

 private:
  std::array<std::shared_ptr<MemoryRegion>, kMemoryClasses> regions_;
};

}  // namespace asymserve
