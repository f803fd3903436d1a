#include "engine/quality/allocation.h"

#include <algorithm>

namespace asymserve {
namespace {

constexpr int32_t kInt8 = 0;  // as a number of planes: "stored in 8 bits"

struct Choice {
  int32_t planes;
  double bits;  // per element
  double loss;
};

/// What an item may become, from small to large.
std::vector<Choice> ChoicesOf(const ItemLoss& item, int32_t head_size, int32_t least_planes) {
  const auto most = static_cast<int32_t>(item.distortion.size()) - 1;
  const double at = item.distortion[static_cast<size_t>(std::min(item.at_planes, most))];
  std::vector<Choice> choices;
  for (int32_t planes = std::min(least_planes, most / 2 * 2); planes <= most; planes += 2) {
    const double share = at > 0 ? item.distortion[static_cast<size_t>(planes)] / at : 0;
    choices.push_back({planes, 4.0 * planes / head_size, item.loss * share});
  }
  choices.push_back({kInt8, 8.0 + 16.0 / head_size, 0});
  return choices;
}

/// Takes the choice whose loss falls most per bit, again and again, as long as `used` bits, of all
/// items together, stay within the budget. chosen [items] are indices into choices.
void SpendBits(const std::vector<std::vector<Choice>>& choices, double used, double budget,
               std::vector<size_t>& chosen) {
  for (;;) {
    double best = 0;
    size_t best_item = choices.size();
    size_t best_choice = 0;
    for (size_t i = 0; i < choices.size(); ++i) {
      const Choice& now = choices[i][chosen[i]];
      for (size_t c = chosen[i] + 1; c < choices[i].size(); ++c) {
        const Choice& next = choices[i][c];
        if (used + next.bits - now.bits > budget) break;
        const double gain = (now.loss - next.loss) / (next.bits - now.bits);
        if (gain <= best) continue;
        best = gain;
        best_item = i;
        best_choice = c;
      }
    }
    if (best_item == choices.size()) return;
    used += choices[best_item][best_choice].bits - choices[best_item][chosen[best_item]].bits;
    chosen[best_item] = best_choice;
  }
}

}  // namespace

std::vector<KvItem> AllocatePlanes(const std::vector<ItemLoss>& losses, int32_t head_size,
                                   double bits, int32_t least_planes) {
  std::vector<std::vector<Choice>> choices;
  std::vector<size_t> chosen(losses.size(), 0);
  double used = 0;
  for (const ItemLoss& item : losses) {
    choices.push_back(ChoicesOf(item, head_size, least_planes));
    used += choices.back().front().bits;
  }
  SpendBits(choices, used, bits * static_cast<double>(losses.size()) + 1e-9, chosen);
  std::vector<KvItem> items;
  for (size_t i = 0; i < losses.size(); ++i) {
    const int32_t planes = choices[i][chosen[i]].planes;
    if (planes == kInt8) {
      items.push_back({.codec = KvCodec::kInt8});
    } else {
      items.push_back({.codec = KvCodec::kPlanes,
                       .base_planes = static_cast<uint8_t>(planes),
                       .fresh_planes = static_cast<uint8_t>(planes)});
    }
  }
  return items;
}

void AllocateFreshPlanes(const std::vector<ItemLoss>& losses, int32_t head_size, double bits,
                         std::vector<KvItem>& items) {
  std::vector<std::vector<Choice>> choices;
  std::vector<size_t> indices;
  double used = 0;
  for (size_t i = 0; i < items.size(); ++i) {
    if (items[i].codec != KvCodec::kPlanes) continue;
    choices.push_back(ChoicesOf(losses[i], head_size, items[i].base_planes));
    choices.back().pop_back();  // a page that has planes cannot become int8
    used += choices.back().front().bits;
    indices.push_back(i);
  }
  std::vector<size_t> chosen(choices.size(), 0);
  SpendBits(choices, used, bits * static_cast<double>(choices.size()) + 1e-9, chosen);
  for (size_t i = 0; i < indices.size(); ++i) {
    items[indices[i]].fresh_planes = static_cast<uint8_t>(choices[i][chosen[i]].planes);
  }
}

}  // namespace asymserve
