#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"

#include "engine/backend/cpu/memory_region.h"

namespace asymserve {

/// Zeroed memory of a region, aligned to a cache line.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  AlignedBuffer(AlignedBuffer&& other) noexcept { *this = std::move(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(region_, other.region_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~AlignedBuffer();

  /// ResourceExhausted when the system refuses.
  static absl::StatusOr<AlignedBuffer> Allocate(const std::shared_ptr<MemoryRegion>& region,
                                                int64_t bytes);

  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }
  template <typename T>
  T* As() const {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::shared_ptr<MemoryRegion> region_;
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
};

}  // namespace asymserve
