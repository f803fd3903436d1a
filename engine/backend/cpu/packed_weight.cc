#include "engine/backend/cpu/packed_weight.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/pack.h"
#include "engine/backend/cpu/packed_format.h"
#include "engine/backend/operation_checks.h"
#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

/// Packs panels of a run of parts of one type.
class RunPacker {
 public:
  explicit RunPacker(std::span<const WeightSource> run) : run_(run) {}

  void Pack(int64_t panel, std::byte* out) const {
    const std::byte* rows[kPanelColumns];
    for (int i = 0; i < kPanelColumns; ++i) rows[i] = FindRow(panel * kPanelColumns + i);
    PackPanel(run_[0].dtype, rows, run_[0].cols, out);
  }

 private:
  /// Null after the last row.
  const std::byte* FindRow(int64_t row) const {
    for (const WeightSource& part : run_) {
      if (row < part.rows) return part.data + row * RowBytes(part.dtype, part.cols);
      row -= part.rows;
    }
    return nullptr;
  }

  std::span<const WeightSource> run_;
};

}  // namespace

void PackedWeight::Plan(std::span<const WeightSource> parts) {
  cols_ = parts[0].cols;
  for (const WeightSource& part : parts) {
    if (segments_.empty() || segments_.back().dtype != part.dtype) {
      segments_.push_back({part.dtype, rows_, 0, PanelBytes(part.dtype, cols_), nullptr});
    }
    segments_.back().rows += part.rows;
    rows_ += part.rows;
  }
}

int64_t PackedWeight::PlannedBytes() const {
  int64_t bytes = 0;
  for (const Segment& segment : segments_) bytes += segment.panel_count() * segment.panel_bytes;
  return bytes;
}

absl::StatusOr<int64_t> PackedWeight::PackedBytes(std::span<const WeightSource> parts) {
  ASYMSERVE_RETURN_IF_ERROR(CheckWeightParts(parts));
  PackedWeight weight;
  weight.Plan(parts);
  return weight.PlannedBytes();
}

absl::StatusOr<std::unique_ptr<PackedWeight>> PackedWeight::Pack(
    std::span<const WeightSource> parts, ThreadPool& pool,
    const std::shared_ptr<MemoryRegion>& region) {
  ASYMSERVE_RETURN_IF_ERROR(CheckWeightParts(parts));
  std::unique_ptr<PackedWeight> weight(new PackedWeight());
  weight->Plan(parts);
  ASYMSERVE_ASSIGN_OR_RETURN(weight->memory_,
                             AlignedBuffer::Allocate(region, weight->PlannedBytes()));
  std::byte* next = weight->memory_.data();
  size_t first = 0;
  for (Segment& segment : weight->segments_) {
    segment.panels = next;
    size_t last = first;
    while (last < parts.size() && parts[last].dtype == segment.dtype) ++last;
    const RunPacker packer(parts.subspan(first, last - first));
    first = last;
    constexpr int kPanelsPerChunk = 4;
    const int panels = segment.panel_count();
    pool.ParallelFor((panels + kPanelsPerChunk - 1) / kPanelsPerChunk, [&](int chunk, int) {
      const int end = std::min(panels, (chunk + 1) * kPanelsPerChunk);
      for (int panel = chunk * kPanelsPerChunk; panel < end; ++panel) {
        packer.Pack(panel, next + panel * segment.panel_bytes);
      }
    });
    next += panels * segment.panel_bytes;
  }
  return weight;
}

void PackedWeight::Dequantize(int64_t row, float* out) const {
  for (const Segment& segment : segments_) {
    const int64_t local = row - segment.first_row;
    if (local >= segment.rows) continue;
    const std::byte* panel = segment.panels + local / kPanelColumns * segment.panel_bytes;
    UnpackColumn(segment.dtype, panel, static_cast<int>(local % kPanelColumns), cols_, out);
    return;
  }
  ASYMSERVE_CHECK(false);
}

}  // namespace asymserve
