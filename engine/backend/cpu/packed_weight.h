#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/backend/cpu/aligned_buffer.h"
#include "engine/base/thread_pool.h"

namespace asymserve {

/// Panels (packed_format.h) of a matrix whose parts may differ in type: each run of parts of one
/// type is a segment with panels of its own.
class PackedWeight final : public Weight {
 public:
  struct Segment {
    DType dtype;
    int64_t first_row;  // of the matrix: the first output column of this segment
    int64_t rows;
    int64_t panel_bytes;
    const std::byte* panels;

    int32_t panel_count() const { return static_cast<int32_t>((rows + 15) / 16); }
  };

  /// InvalidArgument for parts that differ in length, are empty or of a type without packing.
  static absl::StatusOr<std::unique_ptr<PackedWeight>> Pack(
      std::span<const WeightSource> parts, ThreadPool& pool,
      const std::shared_ptr<MemoryRegion>& region);
  /// What they take packed; their data is not read.
  static absl::StatusOr<int64_t> PackedBytes(std::span<const WeightSource> parts);

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }
  int64_t bytes() const override { return memory_.bytes(); }
  std::span<const Segment> segments() const { return segments_; }

  /// Row `row` of the matrix, dequantized: cols() floats.
  void Dequantize(int64_t row, float* out) const;

 private:
  PackedWeight() = default;
  /// Fills everything but the memory.
  void Plan(std::span<const WeightSource> parts);
  int64_t PlannedBytes() const;

  int64_t rows_ = 0;
  int64_t cols_ = 0;
  std::vector<Segment> segments_;
  AlignedBuffer memory_;
};

}  // namespace asymserve
