#include "engine/backend/attention_plan.h"

#include <algorithm>

#include "engine/kv/codec.h"

namespace asymserve {
namespace {

/// The end of the tile of rows that begins at `first`: consecutive positions of a sequence.
size_t TileEnd(const std::vector<AttentionRow>& rows, size_t first) {
  const size_t limit = std::min(rows.size(), first + static_cast<size_t>(kSplitTileRows));
  size_t end = first + 1;
  while (end < limit && rows[end].first_page == rows[first].first_page &&
         rows[end].position == rows[end - 1].position + 1) {
    ++end;
  }
  return end;
}

}  // namespace

void PlanAttention(std::span<const int32_t> positions, std::span<const int32_t> token_offset,
                   std::span<const int32_t> page_offset, AttentionPlan* plan) {
  plan->rows.clear();
  plan->work.clear();
  for (size_t s = 0; s + 1 < token_offset.size(); ++s) {
    for (int32_t t = token_offset[s]; t < token_offset[s + 1]; ++t) {
      const int32_t position = positions[static_cast<size_t>(t)];
      const int32_t pages = position / kKvPageTokens + 1;
      const AttentionRow row = {.position = position,
                                .first_page = page_offset[s],
                                .first_work = static_cast<int32_t>(plan->work.size()),
                                .splits = (pages + kSplitPages - 1) / kSplitPages};
      plan->rows.push_back(row);
      for (int32_t split = 0; split < row.splits; ++split) plan->work.push_back({t, split});
    }
  }
  PlanTiles(plan);
}

void PlanTiles(AttentionPlan* plan) {
  const std::vector<AttentionRow>& rows = plan->rows;
  plan->tiles.clear();
  plan->single_tiles = 0;
  plan->most_rows = 0;
  for (const bool single : {true, false}) {
    for (size_t first = 0; first < rows.size();) {
      const size_t end = TileEnd(rows, first);
      size_t row = first;
      for (int32_t split = 0; split < rows[end - 1].splits; ++split) {
        while (rows[row].splits <= split) ++row;
        const auto count = static_cast<int32_t>(end - row);
        if ((count == 1) != single) continue;
        plan->tiles.push_back({static_cast<int32_t>(row), count, split});
        plan->single_tiles += single ? 1 : 0;
        plan->most_rows = std::max(plan->most_rows, count);
      }
      first = end;
    }
  }
}

}  // namespace asymserve
