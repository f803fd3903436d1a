#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "engine/backend/cuda/device.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/draw_rows.h"
#include "engine/backend/cuda/staging.h"
#include "engine/base/tensor.h"

namespace asymserve::cuda {

/// The kernels of draws, in their order. `edits` and `logprobs`: whether any draw has such.
cudaError_t LaunchDraws(const DrawRows& rows, bool edits, bool logprobs, cudaStream_t stream);

/// The draws of a step and their memory.
class TokenSampler {
 public:
  /// Of a draw: 24 KB of the device's memory for a row of logits. A request whose bias, penalties
  /// and bans name more tokens is sampled on the host.
  static constexpr int32_t kMostEdits = 1536;

  /// `device` and `staging` null: only counts.
  TokenSampler(Device* device, DeviceMemory& memory, Staging* staging)
      : device_(device), memory_(memory), staging_(staging) {}

  absl::Status Reserve(int64_t rows);
  /// InternalError for draws that are not of ascending rows of `logits` or whose edits do not fit,
  /// or with parameters that nothing can be drawn by.
  absl::Status Check(TensorView logits, const DrawBatch& batch,
                     std::span<const DrawnToken> tokens) const;
  /// Begins to choose the tokens of draws that Check let pass.
  absl::Status Start(TensorView logits, const DrawBatch& batch);
  /// Once the device was waited for: the tokens of the last Start.
  void Read(std::span<DrawnToken> tokens) const;

 private:
  Device* const device_;
  DeviceMemory& memory_;
  Staging* const staging_;
  int64_t rows_ = 0;
  DeviceBuffer draws_, edits_, unedited_, best_, edited_, drawn_;
  PinnedBuffer host_drawn_;
};

}  // namespace asymserve::cuda
