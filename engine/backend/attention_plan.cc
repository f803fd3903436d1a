#include "engine/backend/attention_plan.h"

#include "engine/kv/codec.h"

namespace asymserve {

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
}

}  // namespace asymserve
