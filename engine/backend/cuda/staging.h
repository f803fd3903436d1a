#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/backend/cuda/device.h"

namespace asymserve::cuda {

/// Pinned host memory, owned.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  /// ResourceExhausted names `what`.
  static absl::StatusOr<PinnedBuffer> Allocate(Device& device, int64_t bytes,
                                               std::string_view what);
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;
  PinnedBuffer(const PinnedBuffer&) = delete;
  PinnedBuffer& operator=(const PinnedBuffer&) = delete;
  ~PinnedBuffer();

  std::byte* data() const { return data_; }

 private:
  Device* device_ = nullptr;
  std::byte* data_ = nullptr;
};

/// Copies of host memory of any kind to the device, without waiting for them: they go through two
/// halves of pinned memory, each used again when its copies are done. Outlived by the device.
class Staging {
 public:
  static absl::StatusOr<std::unique_ptr<Staging>> Create(Device& device, int64_t half_bytes);
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  /// `host` may be changed when the call returned. Errors name `what`.
  absl::Status Copy(void* device, const void* host, int64_t bytes, std::string_view what);

 private:
  struct Half {
    PinnedBuffer memory;
    cudaEvent_t event = nullptr;
    bool recorded = false;  // after its last copy, and not waited for
  };

  Staging(Device& device, int64_t half_bytes) : device_(device), half_bytes_(half_bytes) {}
  absl::Status TurnOver();

  Device& device_;
  const int64_t half_bytes_;
  std::array<Half, 2> halves_;
  size_t current_ = 0;
  int64_t used_ = 0;  // of the current half
};

}  // namespace asymserve::cuda
