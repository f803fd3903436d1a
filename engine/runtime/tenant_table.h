#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace asymserve {

/// A tenant with a share of its own.
struct TenantShare {
  std::string name;
  int32_t weight = 1;  // 1 .. kMaxWeight
};

/// Names of tenants to the small ids of the scheduler. "" and "default" are one tenant. Names that
/// are not configured have weight 1 and kOthers ids among them: one more name takes the id of the
/// one that was not seen for longest. Not thread-safe.
class TenantTable {
 public:
  static constexpr size_t kOthers = 1024;
  static constexpr char kDefaultName[] = "default";
  static constexpr char kOtherName[] = "other";

  struct Tenant {
    int32_t id = 0;
    int32_t weight = 1;
    int32_t label = 0;  // index into labels(): its own if configured, else that of all others
  };

  explicit TenantTable(std::span<const TenantShare> configured);

  Tenant Resolve(const std::string& name);
  /// Other weights from the next Resolve on: those of `shares`, 1 of every other name. Ids and
  /// labels stay: a name that was not configured at first has a weight, and remains among the
  /// others.
  void SetWeights(std::span<const TenantShare> shares);
  /// One name for each tenant: "" for "default".
  static std::string_view NameOf(std::string_view name) {
    return name == kDefaultName ? std::string_view() : name;
  }
  /// "default", the configured names, "other".
  const std::vector<std::string>& labels() const { return labels_; }

 private:
  struct Other {
    std::string name;
    int32_t id;
  };
  int32_t OtherWeight(const std::string& name) const {
    const auto found = other_weights_.find(name);
    return found == other_weights_.end() ? 1 : found->second;
  }
  std::vector<std::string> labels_;
  std::unordered_map<std::string, Tenant> configured_;
  std::unordered_map<std::string, int32_t> other_weights_;  // of names not in configured_
  std::list<Other> others_;                                 // last seen first
  std::unordered_map<std::string, std::list<Other>::iterator> by_name_;
};

}  // namespace asymserve
