#include "engine/runtime/tenant_table.h"

namespace asymserve {

TenantTable::TenantTable(std::span<const TenantShare> configured) {
  labels_.emplace_back(kDefaultName);
  configured_.emplace(kDefaultName, Tenant{});
  for (const TenantShare& share : configured) {
    if (share.name == kDefaultName) {
      configured_.at(share.name).weight = share.weight;
      continue;
    }
    const auto id = static_cast<int32_t>(labels_.size());
    if (configured_.emplace(share.name, Tenant{id, share.weight, id}).second) {
      labels_.push_back(share.name);
    }
  }
  labels_.emplace_back(kOtherName);
}

TenantTable::Tenant TenantTable::Resolve(const std::string& name) {
  const auto configured = configured_.find(name.empty() ? kDefaultName : name);
  if (configured != configured_.end()) return configured->second;
  const auto label = static_cast<int32_t>(labels_.size()) - 1;
  const auto known = by_name_.find(name);
  if (known != by_name_.end()) {
    others_.splice(others_.begin(), others_, known->second);
  } else if (others_.size() < kOthers) {
    others_.push_front({name, label + static_cast<int32_t>(others_.size())});
    by_name_.emplace(name, others_.begin());
  } else {
    by_name_.erase(others_.back().name);
    others_.splice(others_.begin(), others_, std::prev(others_.end()));
    others_.front().name = name;
    by_name_.emplace(name, others_.begin());
  }
  return {others_.front().id, OtherWeight(name), label};
}

void TenantTable::SetWeights(std::span<const TenantShare> shares) {
  for (auto& [name, tenant] : configured_) tenant.weight = 1;
  other_weights_.clear();
  for (const TenantShare& share : shares) {
    const auto configured = configured_.find(share.name);
    if (configured != configured_.end()) {
      configured->second.weight = share.weight;
    } else {
      other_weights_[share.name] = share.weight;
    }
  }
}

}  // namespace asymserve
