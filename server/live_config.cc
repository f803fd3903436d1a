#include "server/live_config.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_join.h"

#include "config/option_change.h"
#include "config/tenants.h"
#include "engine/base/check.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr LiveOption kLiveOptions[] = {
    {"engine.max_waiting",
     [](const Config& config, const LiveTargets& targets) {
       return targets.engine.SetMaxWaiting(config.engine.max_waiting).ok();
     }},
    {"engine.step_ms",
     [](const Config& config, const LiveTargets& targets) {
       targets.engine.SetStepTime(std::llround(config.engine.step_ms * 1e3));
       return true;
     }},
    {"kv.quality.canary_rate",
     [](const Config& config, const LiveTargets& targets) {
       targets.engine.SetCanaryRate(config.kv.quality.canary_rate);
       return true;
     }},
    {"scheduling.tenants",
     [](const Config& config, const LiveTargets& targets) {
       targets.engine.SetTenantWeights(ToTenantShares(config.scheduling));
       return true;
     }},
    {"server.stream_queue_messages",
     [](const Config& config, const LiveTargets& targets) {
       targets.service.SetStreamQueue(config.server.stream_queue_messages);
       return true;
     }},
    {"server.drain_seconds",
     [](const Config& config, const LiveTargets& targets) {
       targets.metrics.drain_budget_ms.Set(std::llround(config.server.drain_seconds * 1e3));
       return true;
     }},
    {"log.level",
     [](const Config& config, const LiveTargets& /*targets*/) {
       SetLogLevel(ParseLogLevel(config.log.level).value_or(LogLevel::kInfo));
       return true;
     }},
};

const LiveOption* Find(std::string_view key) {
  const auto* const found =
      std::find_if(std::begin(kLiveOptions), std::end(kLiveOptions),
                   [&](const LiveOption& option) { return option.key == key; });
  return found == std::end(kLiveOptions) ? nullptr : found;
}

void LogChanges(LogLevel level, std::string_view event, const std::vector<std::string>& changes) {
  if (!changes.empty()) Log(level, event, {{"options", absl::StrJoin(changes, ", ")}});
}

}  // namespace

std::vector<TenantShare> ToTenantShares(const SchedulingSection& scheduling) {
  const auto tenants = ParseTenants(scheduling.tenants);
  ASYMSERVE_CHECK(tenants.has_value());  // validated
  std::vector<TenantShare> shares;
  for (const auto& [name, weight] : *tenants) shares.push_back({.name = name, .weight = weight});
  return shares;
}

std::span<const LiveOption> LiveOptions() {
  return kLiveOptions;
}

absl::Status LiveConfig::Reload(const LiveTargets& targets, ReloadReport& report) {
  ASYMSERVE_ASSIGN_OR_RETURN(const Config read, ReadSource(source_));
  ASYMSERVE_RETURN_IF_ERROR(CheckSource(source_, read));
  {
    const std::lock_guard lock(mutex_);
    for (const OptionChange& change : Changes(running_, read)) {
      const LiveOption* const live = Find(change.option->key);
      if (live == nullptr || !live->apply(read, targets)) {
        report.needs_restart.push_back(ToString(change));
        continue;
      }
      CopyValue(*change.option, read, running_);
      report.changed.push_back(ToString(change));
    }
  }
  LogChanges(LogLevel::kInfo, "config_changed", report.changed);
  LogChanges(LogLevel::kWarn, "needs_restart", report.needs_restart);
  return absl::OkStatus();
}

void LiveConfig::SetLogLevel(LogLevel level) {
  const std::lock_guard lock(mutex_);
  running_.log.level = std::string(LogLevelName(level));
  asymserve::SetLogLevel(level);
}

std::string LiveConfig::log_level() const {
  const std::lock_guard lock(mutex_);
  return running_.log.level;
}

std::chrono::milliseconds LiveConfig::drain_budget() const {
  const std::lock_guard lock(mutex_);
  return std::chrono::milliseconds(std::llround(running_.server.drain_seconds * 1e3));
}

}  // namespace asymserve
