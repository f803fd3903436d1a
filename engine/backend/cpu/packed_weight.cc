#include "engine/backend/cpu/packed_weight.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

#include "engine/backend/cpu/pack.h"
#include "engine/backend/cpu/packed_format.h"
#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

// Output columns and bytes are counted in 32 and 64 bits; both stay far from their ends.
constexpr int64_t kMaxExtent = int64_t{1} << 30;

absl::Status CheckParts(std::span<const WeightSource> parts) {
  if (parts.empty()) return absl::InvalidArgumentError("weight has no parts");
  int64_t rows = 0;
  for (const WeightSource& part : parts) {
    const DTypeInfo info = Info(part.dtype);
    if (!HasPacking(part.dtype)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weights of type ", info.name, " are not supported"));
    }
    if (part.rows < 1 || part.rows > kMaxExtent || part.cols < 1 || part.cols > kMaxExtent) {
      return absl::InvalidArgumentError(absl::StrCat("weight of ", part.rows, " x ", part.cols,
                                                     "; extents must be in [1, ", kMaxExtent, "]"));
    }
    if (part.cols != parts[0].cols) {
      return absl::InvalidArgumentError(absl::StrCat("weight parts have rows of ", parts[0].cols,
                                                     " and of ", part.cols, " elements"));
    }
    if (part.cols % info.block_elements != 0) {
      return absl::InvalidArgumentError(absl::StrCat("weight rows of ", part.cols,
                                                     " elements are not a multiple of ", info.name,
                                                     "'s block of ", info.block_elements));
    }
    rows += part.rows;
  }
  if (rows > kMaxExtent) {
    return absl::InvalidArgumentError(
        absl::StrCat("weight of ", rows, " rows; the limit is ", kMaxExtent));
  }
  return absl::OkStatus();
}

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

absl::StatusOr<std::unique_ptr<PackedWeight>> PackedWeight::Pack(
    std::span<const WeightSource> parts, ThreadPool& pool) {
  ASYMSERVE_RETURN_IF_ERROR(CheckParts(parts));
  std::unique_ptr<PackedWeight> weight(new PackedWeight());
  weight->cols_ = parts[0].cols;
  std::vector<std::span<const WeightSource>> runs;
  int64_t bytes = 0;
  for (size_t first = 0; first < parts.size();) {
    size_t last = first;
    int64_t rows = 0;
    for (; last < parts.size() && parts[last].dtype == parts[first].dtype; ++last) {
      rows += parts[last].rows;
    }
    runs.push_back(parts.subspan(first, last - first));
    const Segment segment = {parts[first].dtype, weight->rows_, rows,
                             PanelBytes(parts[first].dtype, weight->cols_), nullptr};
    weight->segments_.push_back(segment);
    weight->rows_ += rows;
    bytes += segment.panel_count() * segment.panel_bytes;
    first = last;
  }
  ASYMSERVE_ASSIGN_OR_RETURN(weight->memory_, AlignedBuffer::Allocate(bytes));
  std::byte* next = weight->memory_.data();
  for (size_t i = 0; i < runs.size(); ++i) {
    Segment& segment = weight->segments_[i];
    segment.panels = next;
    const RunPacker packer(runs[i]);
    constexpr int kPanelsPerChunk = 4;
    const int panels = segment.panel_count();
    pool.ParallelFor((panels + kPanelsPerChunk - 1) / kPanelsPerChunk, [&](int chunk, int) {
      const int last = std::min(panels, (chunk + 1) * kPanelsPerChunk);
      for (int panel = chunk * kPanelsPerChunk; panel < last; ++panel) {
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
