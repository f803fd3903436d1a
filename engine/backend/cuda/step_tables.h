#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/status.h"

#include "engine/backend/attention_plan.h"
#include "engine/backend/backend.h"
#include "engine/backend/cuda/device_memory.h"
#include "engine/backend/cuda/staging.h"

namespace asymserve::cuda {

/// What a part of a step may hold.
struct SliceLimits {
  int32_t rows = 0;   // tokens of a step
  int32_t pages = 0;  // of the page tables of its sequences
  int32_t work = 0;   // splits of its rows
};

/// Consecutive tokens of a step with their tables on the device: rows name pages and work within
/// the slice.
struct StepSlice {
  int32_t first_token = 0;
  int32_t row_count = 0;
  int32_t exact_rows = 0;  // of those, of exact sequences
  int32_t work_count = 0;
  int32_t tile_count = 0;
  int32_t single_tiles = 0;
  int32_t most_rows = 0;
  const AttentionRow* rows = nullptr;
  const AttentionWork* work = nullptr;
  const SplitTile* tiles = nullptr;
  const KvPage* pages = nullptr;
};

/// Page tables and attention plans of steps on the device. A step that fits is one slice, and stays
/// there for the calls that are given it again (KvStep::number); others are copied slice by slice.
class StepTables {
 public:
  /// `staging` null: only counts.
  StepTables(DeviceMemory& memory, Staging* staging) : memory_(memory), staging_(staging) {}

  absl::Status Reserve(const SliceLimits& limits);
  const SliceLimits& limits() const { return limits_; }
  /// Forgets what is there.
  void Forget() { number_ = 0; }
  /// Whether ForEachSlice was given this step last, and copied it whole.
  bool Holds(const KvStep& step) const { return step.number != 0 && step.number == number_; }

  /// Calls `run` for the slices of a step that CheckKvStep let pass, in order. InternalError for a
  /// sequence that no slice can hold.
  using SliceRun = std::function<absl::Status(const StepSlice&)>;
  absl::Status ForEachSlice(const KvStep& step, const SliceRun& run);

 private:
  /// Plans the tokens from `first` on that fit; tokens taken, 0 when one does not.
  int32_t Plan(const KvStep& step, int32_t first);
  absl::Status Copy();
  StepSlice Slice(int32_t first) const;

  DeviceMemory& memory_;
  Staging* staging_;
  SliceLimits limits_;
  DeviceBuffer rows_, work_, tiles_, pages_;
  uint64_t number_ = 0;  // of the step that is there
  // Of the slice that was planned last.
  AttentionPlan plan_;
  int32_t exact_rows_ = 0;
  std::vector<KvPage> page_list_;
};

}  // namespace asymserve::cuda
