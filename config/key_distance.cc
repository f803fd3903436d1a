#include "config/key_distance.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace asymserve {
namespace {

constexpr size_t kMaxKey = 64;

std::string_view NameOf(std::string_view key) {
  return key.substr(key.rfind('.') + 1);
}

}  // namespace

size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substitution = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({substitution, last[j] + 1, row[j - 1] + 1});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

std::string_view NearestKey(std::string_view key, std::span<const std::string_view> known) {
  if (key.empty() || key.size() > kMaxKey) return {};
  std::string_view nearest;
  size_t nearest_distance = std::max<size_t>(2, key.size() / 3) + 1;
  for (const std::string_view candidate : known) {
    size_t distance = EditDistance(key, candidate);
    if (NameOf(candidate) == NameOf(key)) distance = std::min<size_t>(distance, 1);
    const bool begins_alike = key.find('.') != std::string_view::npos && candidate.starts_with(key);
    if (begins_alike) distance = std::min<size_t>(distance, 2);
    if (distance >= nearest_distance || distance >= candidate.size()) continue;
    nearest_distance = distance;
    nearest = candidate;
  }
  return nearest;
}

}  // namespace asymserve
