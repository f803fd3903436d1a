#include "engine/backend/cuda/device_weight.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/operation_checks.h"
#include "engine/base/dequantize.h"
#include "engine/base/float16.h"
#include "engine/base/status.h"

namespace asymserve::cuda {
namespace {

DType StoredType(DType file) {
  return Info(file).block_elements == 1 ? file : DType::kF16;
}

int64_t PartBytes(const WeightSource& part) {
  return part.rows * RowBytes(StoredType(part.dtype), part.cols);
}

/// Where each part begins, and at the end where the last one ends: behind the part before, or, of
/// another type, at the next multiple of 16 bytes.
std::vector<int64_t> Places(std::span<const WeightSource> parts) {
  constexpr int64_t kAlignment = 16;
  std::vector<int64_t> places;
  int64_t end = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (i > 0 && StoredType(parts[i].dtype) != StoredType(parts[i - 1].dtype)) {
      end = (end + kAlignment - 1) / kAlignment * kAlignment;
    }
    places.push_back(end);
    end += PartBytes(parts[i]);
  }
  places.push_back(end);
  return places;
}

/// A row of a quantized part.
absl::StatusOr<std::vector<uint16_t>> HalfRow(const WeightSource& part, int64_t row) {
  const std::byte* bytes = part.data + row * RowBytes(part.dtype, part.cols);
  std::vector<uint16_t> halves;
  halves.reserve(static_cast<size_t>(part.cols));
  for (const float value : DequantizeRow(part.dtype, bytes, part.cols)) {
    const uint16_t half = FloatToHalf(value);
    if (!std::isfinite(HalfToFloat(half))) {
      return absl::InvalidArgumentError(
          absl::StrCat("a ", Info(part.dtype).name, " weight of row ", row, " is ", value,
                       "; the cuda backend keeps such weights as F16"));
    }
    halves.push_back(half);
  }
  return halves;
}

absl::Status CopyPart(const WeightSource& part, std::byte* to, Staging& staging) {
  if (StoredType(part.dtype) == part.dtype) {
    return staging.Copy(to, part.data, PartBytes(part), "weights");
  }
  const int64_t row_bytes = RowBytes(DType::kF16, part.cols);
  for (int64_t row = 0; row < part.rows; ++row) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<uint16_t> halves, HalfRow(part, row));
    ASYMSERVE_RETURN_IF_ERROR(
        staging.Copy(to + row * row_bytes, halves.data(), row_bytes, "weights"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceWeight>> DeviceWeight::Make(
    std::span<const WeightSource> parts, DeviceMemory& memory, Staging* staging) {
  ASYMSERVE_RETURN_IF_ERROR(CheckWeightParts(parts));
  std::unique_ptr<DeviceWeight> weight(new DeviceWeight());
  for (const WeightSource& part : parts) weight->rows_ += part.rows;
  weight->cols_ = parts[0].cols;
  const std::vector<int64_t> places = Places(parts);
  ASYMSERVE_ASSIGN_OR_RETURN(weight->memory_,
                             memory.Allocate(MemoryClass::kWeights, places.back(), "weights"));
  if (staging == nullptr) return weight;
  for (size_t i = 0; i < parts.size(); ++i) {
    const DType type = StoredType(parts[i].dtype);
    std::byte* place = weight->memory_.As<std::byte>() + places[i];
    if (weight->segments_.empty() || weight->segments_.back().type != type) {
      weight->segments_.push_back({place, type, 0, static_cast<int32_t>(parts[i].cols)});
    }
    weight->segments_.back().rows += static_cast<int32_t>(parts[i].rows);
    ASYMSERVE_RETURN_IF_ERROR(CopyPart(parts[i], place, *staging));
  }
  return weight;
}

}  // namespace asymserve::cuda
