#include "engine/backend/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/device_error.h"
#include "engine/base/status.h"

namespace asymserve::cuda {

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(Device& device, int64_t bytes,
                                                    std::string_view what) {
  PinnedBuffer buffer;
  void* data = nullptr;
  const cudaError_t error = device.AllocatePinned(&data, bytes);
  if (error == cudaErrorMemoryAllocation) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "cuda: no room for ", bytes, " bytes of pinned host memory, ", std::string(what)));
  }
  ASYMSERVE_RETURN_IF_ERROR(CheckCuda(device, error, what));
  buffer.device_ = &device;
  buffer.data_ = static_cast<std::byte*>(data);
  return buffer;
}

PinnedBuffer::PinnedBuffer(PinnedBuffer&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)) {}

PinnedBuffer& PinnedBuffer::operator=(PinnedBuffer&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  return *this;
}

PinnedBuffer::~PinnedBuffer() {
  if (data_ != nullptr) device_->FreePinned(data_);
}

absl::StatusOr<std::unique_ptr<Staging>> Staging::Create(Device& device, int64_t half_bytes) {
  std::unique_ptr<Staging> staging(new Staging(device, half_bytes));
  for (Half& half : staging->halves_) {
    ASYMSERVE_ASSIGN_OR_RETURN(half.memory, PinnedBuffer::Allocate(device, half_bytes, "staging"));
    ASYMSERVE_RETURN_IF_ERROR(
        CheckCuda(device, device.CreateEvent(&half.event), "creating an event"));
  }
  return staging;
}

Staging::~Staging() {
  for (const Half& half : halves_) {
    if (half.event != nullptr) device_.DestroyEvent(half.event);
  }
}

absl::Status Staging::TurnOver() {
  Half& full = halves_[current_];
  ASYMSERVE_RETURN_IF_ERROR(
      CheckCuda(device_, device_.RecordEvent(full.event), "recording an event"));
  full.recorded = true;
  current_ = 1 - current_;
  used_ = 0;
  Half& next = halves_[current_];
  if (!next.recorded) return absl::OkStatus();
  next.recorded = false;
  return CheckCuda(device_, device_.WaitEvent(next.event), "waiting for copies to the device");
}

absl::Status Staging::Copy(void* device, const void* host, int64_t bytes, std::string_view what) {
  constexpr int64_t kAlignment = 16;
  auto* to = static_cast<std::byte*>(device);
  const auto* from = static_cast<const std::byte*>(host);
  while (bytes > 0) {
    if (used_ == half_bytes_) ASYMSERVE_RETURN_IF_ERROR(TurnOver());
    const int64_t piece = std::min(bytes, half_bytes_ - used_);
    std::byte* place = halves_[current_].memory.data() + used_;
    std::memcpy(place, from, static_cast<size_t>(piece));
    ASYMSERVE_RETURN_IF_ERROR(CheckCuda(
        device_, device_.CopyToDevice(to, place, piece),
        absl::StrCat("copying ", piece, " bytes of ", std::string(what), " to the device")));
    used_ = std::min(half_bytes_, used_ + (piece + kAlignment - 1) / kAlignment * kAlignment);
    to += piece;
    from += piece;
    bytes -= piece;
  }
  return absl::OkStatus();
}

}  // namespace asymserve::cuda
