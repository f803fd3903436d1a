#include "config/tenants.h"

#include <algorithm>

#include "config/scalar.h"

namespace asymserve {

std::optional<std::vector<std::pair<std::string, int32_t>>> ParseTenants(std::string_view text) {
  constexpr size_t kMaxTenants = 64, kMaxNameBytes = 64;
  constexpr int32_t kMaxWeight = 10'000;
  std::vector<std::pair<std::string, int32_t>> tenants;
  while (!text.empty()) {
    const size_t comma = text.find(',');
    const std::string_view entry = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (comma != std::string_view::npos && text.empty()) return std::nullopt;
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string name(entry.substr(0, equals));
    if (name.empty() || name.size() > kMaxNameBytes || name == "other") return std::nullopt;
    if (std::any_of(name.begin(), name.end(), [](char c) { return c <= 0x20 || c > 0x7E; })) {
      return std::nullopt;
    }
    const std::optional<int32_t> weight = ParseInt32(std::string(entry.substr(equals + 1)));
    if (!weight || *weight < 1 || *weight > kMaxWeight) return std::nullopt;
    const bool known = std::any_of(tenants.begin(), tenants.end(),
                                   [&](const auto& tenant) { return tenant.first == name; });
    if (known || tenants.size() == kMaxTenants) return std::nullopt;
    tenants.emplace_back(name, *weight);
  }
  return tenants;
}

}  // namespace asymserve
