#include "engine/backend/cuda/device_weight.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cuda/q4_layout.h"
#include "engine/backend/cuda/q4_pack.h"
#include "engine/backend/operation_checks.h"
#include "engine/base/dequantize.h"
#include "engine/base/float16.h"
#include "engine/base/status.h"

namespace asymserve::cuda {
namespace {

DType StoredType(DType file) {
  return Info(file).block_elements == 1 || IsQ4(file) ? file : DType::kF16;
}

/// Parts after one another that are stored in one type, and where their bytes are in the buffer.
struct Segment {
  std::span<const WeightSource> parts;
  DType type = DType::kF32;
  int64_t rows = 0;
  int64_t begin = 0;
  int64_t end = 0;
};

std::vector<Segment> SegmentsOf(std::span<const WeightSource> parts) {
  constexpr int64_t kAlignment = 128;  // a line of the device's caches
  std::vector<Segment> segments;
  int64_t end = 0;
  for (size_t first = 0; first < parts.size();) {
    Segment segment;
    segment.type = StoredType(parts[first].dtype);
    size_t last = first;
    while (last < parts.size() && StoredType(parts[last].dtype) == segment.type) {
      segment.rows += parts[last++].rows;
    }
    segment.parts = parts.subspan(first, last - first);
    segment.begin = (end + kAlignment - 1) / kAlignment * kAlignment;
    const int64_t cols = parts[first].cols;
    end = segment.begin + (IsQ4(segment.type)
                               ? Q4Tiles(segment.rows) * Q4Layout(segment.type, cols).tile_bytes
                               : segment.rows * RowBytes(segment.type, cols));
    segment.end = end;
    segments.push_back(segment);
    first = last;
  }
  return segments;
}

const std::byte* RowOf(const WeightSource& part, int64_t row) {
  return part.data + row * RowBytes(part.dtype, part.cols);
}

/// A row of a quantized part.
absl::StatusOr<std::vector<uint16_t>> HalfRow(const WeightSource& part, int64_t row) {
  std::vector<uint16_t> halves;
  halves.reserve(static_cast<size_t>(part.cols));
  for (const float value : DequantizeRow(part.dtype, RowOf(part, row), part.cols)) {
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

/// Products round BF16 weights to fp16 (dense_products.h).
absl::Status CheckBrains(const WeightSource& part) {
  constexpr uint16_t kTooLarge = 0x4780;  // 65536; NaN and infinity are above it
  for (int64_t row = 0; row < part.rows; ++row) {
    const std::byte* from = RowOf(part, row);
    for (int64_t col = 0; col < part.cols; ++col) {
      uint16_t brain = 0;
      std::memcpy(&brain, from + 2 * col, sizeof(brain));
      if ((brain & 0x7FFF) < kTooLarge) continue;
      return absl::InvalidArgumentError(absl::StrCat("a BF16 weight of row ", row, " is ",
                                                     BrainToFloat(brain),
                                                     "; the cuda backend multiplies it as F16"));
    }
  }
  return absl::OkStatus();
}

absl::Status CopyPart(const WeightSource& part, std::byte* to, Staging& staging) {
  const DType type = StoredType(part.dtype);
  const int64_t row_bytes = RowBytes(type, part.cols);
  if (type == DType::kBF16) ASYMSERVE_RETURN_IF_ERROR(CheckBrains(part));
  if (type == part.dtype) return staging.Copy(to, part.data, part.rows * row_bytes, "weights");
  for (int64_t row = 0; row < part.rows; ++row) {
    ASYMSERVE_ASSIGN_OR_RETURN(const std::vector<uint16_t> halves, HalfRow(part, row));
    ASYMSERVE_RETURN_IF_ERROR(
        staging.Copy(to + row * row_bytes, halves.data(), row_bytes, "weights"));
  }
  return absl::OkStatus();
}

/// Tiles go over the edges of parts.
absl::Status CopyTiles(const Segment& segment, std::byte* to, Staging& staging) {
  std::vector<const std::byte*> rows;
  const int64_t cols = segment.parts[0].cols;
  for (const WeightSource& part : segment.parts) {
    for (int64_t row = 0; row < part.rows; ++row) {
      if (!HasFiniteScales(part.dtype, RowOf(part, row), cols)) {
        return absl::InvalidArgumentError(
            absl::StrCat("a ", Info(part.dtype).name, " scale of row ", row, " is not finite"));
      }
      rows.push_back(RowOf(part, row));
    }
  }
  const int64_t tile_bytes = Q4Layout(segment.type, cols).tile_bytes;
  std::vector<std::byte> tile(static_cast<size_t>(tile_bytes));
  for (std::span<const std::byte* const> left = rows; !left.empty();) {
    const size_t count = std::min(left.size(), size_t{kQ4TileRows});
    PackQ4Tile(segment.type, left.first(count), cols, tile.data());
    ASYMSERVE_RETURN_IF_ERROR(staging.Copy(to, tile.data(), tile_bytes, "weights"));
    to += tile_bytes;
    left = left.subspan(count);
  }
  return absl::OkStatus();
}

absl::Status CopySegment(const Segment& segment, std::byte* to, Staging& staging) {
  if (IsQ4(segment.type)) return CopyTiles(segment, to, staging);
  for (const WeightSource& part : segment.parts) {
    ASYMSERVE_RETURN_IF_ERROR(CopyPart(part, to, staging));
    to += part.rows * RowBytes(segment.type, part.cols);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<DeviceWeight>> DeviceWeight::Make(
    std::span<const WeightSource> parts, DeviceMemory& memory, Staging* staging) {
  ASYMSERVE_RETURN_IF_ERROR(CheckWeightParts(parts));
  std::unique_ptr<DeviceWeight> weight(new DeviceWeight());
  weight->cols_ = parts[0].cols;
  const std::vector<Segment> segments = SegmentsOf(parts);
  ASYMSERVE_ASSIGN_OR_RETURN(
      weight->memory_, memory.Allocate(MemoryClass::kWeights, segments.back().end, "weights"));
  for (const Segment& segment : segments) {
    weight->rows_ += segment.rows;
    if (staging == nullptr) continue;
    std::byte* place = weight->memory_.As<std::byte>() + segment.begin;
    weight->segments_.push_back({place, segment.type, static_cast<int32_t>(segment.rows),
                                 static_cast<int32_t>(weight->cols_)});
    ASYMSERVE_RETURN_IF_ERROR(CopySegment(segment, place, *staging));
  }
  return weight;
}

}  // namespace asymserve::cuda
