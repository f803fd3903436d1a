#include "engine/backend/cuda/device_memory.h"

#include <string>

#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/device_error.h"

namespace asymserve::cuda {
namespace {

constexpr int64_t kGrain = 256;  // addresses that a device gives are multiples of it
constexpr int64_t kLargestPart = int64_t{1} << 20;
constexpr int64_t kPiece = int64_t{2} << 20;

int64_t Counted(int64_t bytes) {
  const int64_t grain = bytes > kLargestPart ? kPiece : kGrain;
  return (bytes + grain - 1) / grain * grain;
}

}  // namespace

DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&& other) noexcept {
  if (this == &other) return *this;
  Reset();
  memory_ = std::exchange(other.memory_, nullptr);
  class_ = other.class_;
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void DeviceBuffer::Reset() {
  if (memory_ == nullptr) return;
  if (data_ != nullptr) memory_->device_->Free(data_);
  memory_->Count(class_, bytes_, -1);
  memory_ = nullptr;
  data_ = nullptr;
  bytes_ = 0;
}

void DeviceMemory::Count(MemoryClass memory, int64_t bytes, int64_t sign) {
  counted_[static_cast<size_t>(memory)] += sign * Counted(bytes);
}

absl::StatusOr<DeviceBuffer> DeviceMemory::Allocate(MemoryClass memory, int64_t bytes,
                                                    std::string_view what) {
  DeviceBuffer buffer;
  if (bytes == 0) return buffer;
  if (device_ != nullptr) {
    const cudaError_t error = device_->Allocate(&buffer.data_, bytes);
    if (error == cudaErrorMemoryAllocation) {
      int64_t free_bytes = 0;
      int64_t total_bytes = 0;
      const bool known = device_->MemoryInfo(&free_bytes, &total_bytes) == cudaSuccess;
      return absl::ResourceExhaustedError(absl::StrCat(
          "cuda: no room for ", bytes, " bytes of ", std::string(what),
          known
              ? absl::StrCat("; ", free_bytes, " of the device's ", total_bytes, " bytes are free")
              : std::string()));
    }
    if (error != cudaSuccess) {
      return CheckCuda(*device_, error,
                       absl::StrCat("allocating ", bytes, " bytes of ", std::string(what)));
    }
  }
  buffer.memory_ = this;
  buffer.class_ = memory;
  buffer.bytes_ = bytes;
  Count(memory, bytes, 1);
  return buffer;
}

absl::StatusOr<std::optional<DeviceRoom>> DeviceMemory::Room() const {
  if (device_ == nullptr) return std::optional<DeviceRoom>();
  DeviceRoom room;
  const cudaError_t error = device_->MemoryInfo(&room.free_bytes, &room.total_bytes);
  absl::Status status = CheckCuda(*device_, error, "asking for free memory");
  if (!status.ok()) return status;
  return std::optional<DeviceRoom>(room);
}

MemoryBytes DeviceMemory::counted() const {
  MemoryBytes counted;
  for (size_t i = 0; i < kMemoryClasses; ++i) counted.bytes[i] = counted_[i];
  return counted;
}

}  // namespace asymserve::cuda
