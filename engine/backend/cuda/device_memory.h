#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/cuda/device.h"
#include "engine/base/memory_class.h"

namespace asymserve::cuda {

class DeviceMemory;

/// Memory of a device, owned. Empty or moved from: nothing.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  DeviceBuffer(DeviceBuffer&& other) noexcept { *this = std::move(other); }
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { Reset(); }

  void Reset();
  template <typename T>
  T* As() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }
  explicit operator bool() const { return memory_ != nullptr; }

 private:
  friend class DeviceMemory;

  DeviceMemory* memory_ = nullptr;
  MemoryClass class_ = MemoryClass::kWeights;
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Allocates on a device, or, without one, only counts: then buffers hold no data. A buffer counts
/// as what the driver may take for it: of up to 1 MiB it is a part of a larger piece, at a multiple
/// of 256 bytes; of more, whole pieces of 2 MiB. Outlives its buffers.
class DeviceMemory {
 public:
  /// `device` may be null.
  explicit DeviceMemory(Device* device) : device_(device) {}
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() = default;

  /// ResourceExhausted names `what`, the bytes, and what the device has.
  absl::StatusOr<DeviceBuffer> Allocate(MemoryClass memory, int64_t bytes, std::string_view what);
  /// What buffers take now. Any thread.
  MemoryBytes counted() const;
  /// As Backend::Room.
  absl::StatusOr<std::optional<DeviceRoom>> Room() const;

 private:
  friend class DeviceBuffer;

  void Count(MemoryClass memory, int64_t bytes, int64_t sign);

  Device* device_;
  std::array<std::atomic<int64_t>, kMemoryClasses> counted_ = {};
};

}  // namespace asymserve::cuda
