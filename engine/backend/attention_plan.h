#pragma once

#include <cstdint>
#include <span>
#include <vector>

// Split-KV attention as a list of work: host and device share the structs.

namespace asymserve {

/// A softmax is computed over a split at a time, and the splits of a row are merged in order: what
/// a row gives does not depend on how they are dealt out. A split lies in one frame of the keys.
inline constexpr int32_t kSplitPages = 8;

/// A token of a step: where its sequence's pages begin in the step's list, and which parts of the
/// work are its.
struct AttentionRow {
  int32_t position = 0;
  int32_t first_page = 0;
  int32_t first_work = 0;
  int32_t splits = 0;

  friend bool operator==(const AttentionRow&, const AttentionRow&) = default;
};

/// A split of a row: pages [kSplitPages split, kSplitPages (split + 1)) of its sequence, as far as
/// the row sees.
struct AttentionWork {
  int32_t row = 0;
  int32_t split = 0;

  friend bool operator==(const AttentionWork&, const AttentionWork&) = default;
};

/// A split of consecutive tokens of a sequence, for kernels that decode its pages once for all of
/// them: rows [first_row, first_row + rows), every one of which has that split.
struct SplitTile {
  int32_t first_row = 0;
  int32_t rows = 0;
  int32_t split = 0;

  friend bool operator==(const SplitTile&, const SplitTile&) = default;
};
inline constexpr int32_t kSplitTileRows = 32;  // at most

struct AttentionPlan {
  std::vector<AttentionRow> rows;   // [T]
  std::vector<AttentionWork> work;  // by row, then split
  std::vector<SplitTile> tiles;     // the same work; those of one row come first
  int32_t single_tiles = 0;         // of one row
  int32_t most_rows = 0;            // of a tile
};

/// The rows and work of a step that is as KvStep of backend.h says. Reuses the plan's memory.
void PlanAttention(std::span<const int32_t> positions, std::span<const int32_t> token_offset,
                   std::span<const int32_t> page_offset, AttentionPlan* plan);

/// The tiles of a plan's rows.
void PlanTiles(AttentionPlan* plan);

}  // namespace asymserve
