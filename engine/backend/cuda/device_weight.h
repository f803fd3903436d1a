#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/matrix_view.h"
#include "engine/backend/cuda/staging.h"

namespace asymserve::cuda {

/// A weight on the device: F32, F16 and BF16 parts as they are in the file, 4-bit ones (IsQ4) with
/// their codes and scales in the tiles of q4_layout.h, other quantized ones dequantized and rounded
/// to F16.
class DeviceWeight final : public Weight {
 public:
  /// `staging` null: only counts, and reads no data. InvalidArgument for parts that do not fit each
  /// other, for scales that are not finite and for values that F16 cannot hold where it is to,
  /// ResourceExhausted for memory.
  static absl::StatusOr<std::unique_ptr<DeviceWeight>> Make(std::span<const WeightSource> parts,
                                                            DeviceMemory& memory, Staging* staging);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return memory_.bytes(); }

  /// Rows of one type, in order.
  const std::vector<MatrixView>& segments() const { return segments_; }

 private:
  DeviceWeight() = default;

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<MatrixView> segments_;
  DeviceBuffer memory_;
};

}  // namespace asymserve::cuda
