#include "engine/runtime/draw_list.h"

#include <algorithm>

#include "engine/model/device_draw.h"

namespace asymserve {

void DrawList::Clear() {
  draws_.clear();
  edits_.clear();
  drawn_.clear();
}

void DrawList::Add(const SampleRequest& request, int32_t row) {
  if (!limits_.has_value() || CountEdits(request) > limits_->edits) return;
  draws_.push_back(MakeDraw(request, row, &edits_));
  drawn_.emplace_back();
}

const DrawnToken* DrawList::Find(int32_t row) const {
  const auto draw = std::lower_bound(draws_.begin(), draws_.end(), row,
                                     [](const TokenDraw& d, int32_t r) { return d.row < r; });
  if (draw == draws_.end() || draw->row != row) return nullptr;
  return &drawn_[static_cast<size_t>(draw - draws_.begin())];
}

}  // namespace asymserve
