#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace asymserve {

/// What a backend's memory is for. Each class is a mapping of its own, so that the kernel's books
/// can be held against a plan.
enum class MemoryClass : uint8_t {
  kWeights,    // packed matrices
  kTables,     // parameter vectors, the rotary table, learned codes
  kWorkspace,  // activations and scratch of a step
  kKv,         // the arena of page records
};
inline constexpr size_t kMemoryClasses = 4;

constexpr const char* MemoryClassName(MemoryClass memory) {
  switch (memory) {
    case MemoryClass::kWeights:
      return "weights";
    case MemoryClass::kTables:
      return "tables";
    case MemoryClass::kWorkspace:
      return "workspace";
    case MemoryClass::kKv:
      return "kv";
  }
  return "?";
}

/// Bytes by MemoryClass.
struct MemoryBytes {
  std::array<int64_t, kMemoryClasses> bytes = {};

  int64_t& operator[](MemoryClass memory) { return bytes[static_cast<size_t>(memory)]; }
  int64_t operator[](MemoryClass memory) const { return bytes[static_cast<size_t>(memory)]; }
  int64_t total() const {
    int64_t sum = 0;
    for (const int64_t one : bytes) sum += one;
    return sum;
  }
  friend bool operator==(const MemoryBytes&, const MemoryBytes&) = default;
};

/// What the kernel, or of a device its driver, counts.
struct MemoryUse {
  MemoryBytes mapped;    // may be touched
  MemoryBytes resident;  // was touched, and is in memory
};

/// Memory of a device that is not the host's, other processes' included, as the driver counts it.
struct DeviceRoom {
  int64_t free_bytes = 0;
  int64_t total_bytes = 0;
};

}  // namespace asymserve
