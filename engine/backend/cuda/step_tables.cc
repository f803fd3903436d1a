#include "engine/backend/cuda/step_tables.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/kv/block_format.h"

namespace asymserve::cuda {

absl::Status StepTables::Reserve(const SliceLimits& limits) {
  Forget();
  limits_ = limits;
  const auto allocate = [&](DeviceBuffer& buffer, int64_t bytes, const char* what) -> absl::Status {
    buffer.Reset();
    ASYMSERVE_ASSIGN_OR_RETURN(buffer, memory_.Allocate(MemoryClass::kWorkspace, bytes, what));
    return absl::OkStatus();
  };
  ASYMSERVE_RETURN_IF_ERROR(allocate(
      rows_, limits.rows * static_cast<int64_t>(sizeof(AttentionRow)), "the rows of a step"));
  ASYMSERVE_RETURN_IF_ERROR(allocate(
      work_, limits.work * static_cast<int64_t>(sizeof(AttentionWork)), "the splits of a step"));
  ASYMSERVE_RETURN_IF_ERROR(allocate(  // each has a split at least
      tiles_, limits.work * static_cast<int64_t>(sizeof(SplitTile)), "the tiles of a step"));
  ASYMSERVE_RETURN_IF_ERROR(
      allocate(pages_, limits.pages * static_cast<int64_t>(sizeof(KvPage)), "page tables"));
  if (staging_ == nullptr) return absl::OkStatus();
  plan_.rows.reserve(static_cast<size_t>(limits.rows));
  plan_.work.reserve(static_cast<size_t>(limits.work));
  plan_.tiles.reserve(static_cast<size_t>(limits.work));
  page_list_.reserve(static_cast<size_t>(limits.pages));
  return absl::OkStatus();
}

int32_t StepTables::Plan(const KvStep& step, int32_t first) {
  plan_.rows.clear();
  plan_.work.clear();
  page_list_.clear();
  exact_rows_ = 0;
  const auto full = [](size_t held, size_t more, int32_t limit) {
    return held + more > static_cast<size_t>(limit);
  };
  for (size_t s = 0; s + 1 < step.token_offset.size(); ++s) {
    const int32_t end = step.token_offset[s + 1];
    if (end <= first) continue;
    const std::span<const KvPage> pages =
        step.pages.subspan(static_cast<size_t>(step.page_offset[s]),
                           static_cast<size_t>(step.page_offset[s + 1] - step.page_offset[s]));
    const auto first_page = static_cast<int32_t>(page_list_.size());
    if (full(page_list_.size(), pages.size(), limits_.pages)) break;
    bool ended = false;
    for (int32_t t = std::max(first, step.token_offset[s]); t < end && !ended; ++t) {
      const int32_t position = step.positions[static_cast<size_t>(t)];
      const int32_t splits = (position / kKvPageTokens + kSplitPages) / kSplitPages;
      ended = full(plan_.rows.size(), 1, limits_.rows) ||
              full(plan_.work.size(), static_cast<size_t>(splits), limits_.work);
      if (ended) break;
      const auto row = static_cast<int32_t>(plan_.rows.size());
      exact_rows_ += pages[0].exact ? 1 : 0;
      plan_.rows.push_back({.position = position,
                            .first_page = first_page,
                            .first_work = static_cast<int32_t>(plan_.work.size()),
                            .splits = splits});
      for (int32_t split = 0; split < splits; ++split) plan_.work.push_back({row, split});
    }
    page_list_.insert(page_list_.end(), pages.begin(), pages.end());
    if (ended) break;
  }
  PlanTiles(&plan_);
  return static_cast<int32_t>(plan_.rows.size());
}

absl::Status StepTables::Copy() {
  const auto copy = [&](const DeviceBuffer& to, const auto& from, const char* what) {
    const auto bytes = static_cast<int64_t>(from.size() * sizeof(from[0]));
    return staging_->Copy(to.As<void>(), from.data(), bytes, what);
  };
  ASYMSERVE_RETURN_IF_ERROR(copy(rows_, plan_.rows, "the rows of a step"));
  ASYMSERVE_RETURN_IF_ERROR(copy(work_, plan_.work, "the splits of a step"));
  ASYMSERVE_RETURN_IF_ERROR(copy(tiles_, plan_.tiles, "the tiles of a step"));
  return copy(pages_, page_list_, "page tables");
}

StepSlice StepTables::Slice(int32_t first) const {
  return {.first_token = first,
          .row_count = static_cast<int32_t>(plan_.rows.size()),
          .exact_rows = exact_rows_,
          .work_count = static_cast<int32_t>(plan_.work.size()),
          .tile_count = static_cast<int32_t>(plan_.tiles.size()),
          .single_tiles = plan_.single_tiles,
          .most_rows = plan_.most_rows,
          .rows = rows_.As<AttentionRow>(),
          .work = work_.As<AttentionWork>(),
          .tiles = tiles_.As<SplitTile>(),
          .pages = pages_.As<KvPage>()};
}

absl::Status StepTables::ForEachSlice(const KvStep& step, const SliceRun& run) {
  if (Holds(step)) return run(Slice(0));
  Forget();
  const auto tokens = static_cast<int32_t>(step.positions.size());
  for (int32_t first = 0; first < tokens;) {
    const int32_t taken = Plan(step, first);
    if (taken == 0) {
      return absl::InternalError(absl::StrCat(
          "position ", step.positions[static_cast<size_t>(first)], " of a step of ",
          step.pages.size(), " pages; the cuda backend holds ", limits_.pages,
          " pages of a sequence, and ", limits_.work, " splits of ", kSplitPages, " of a row"));
    }
    ASYMSERVE_RETURN_IF_ERROR(Copy());
    ASYMSERVE_RETURN_IF_ERROR(run(Slice(first)));
    first += taken;
    if (taken == tokens) number_ = step.number;
  }
  return absl::OkStatus();
}

}  // namespace asymserve::cuda
