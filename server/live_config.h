#pragma once

#include <chrono>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "config/config.h"
#include "config/config_source.h"
#include "engine/base/log.h"
#include "server/inference_service.h"
#include "server/reloader.h"

namespace asymserve {

/// What options are applied to while it serves. All of it outlives their use.
struct LiveTargets {
  Engine& engine;
  InferenceService& service;
  ServerMetrics& metrics;
};

/// An option that changes without a restart. `apply` gives the targets what `config` says; false:
/// this value needs a restart, and nothing was done.
struct LiveOption {
  std::string_view key;
  bool (*apply)(const Config& config, const LiveTargets& targets);
};

/// All of them: those of which config/asymserve.yaml says "Reloaded on SIGHUP", a test checks.
std::span<const LiveOption> LiveOptions();

/// scheduling.tenants, of a valid configuration.
std::vector<TenantShare> ToTenantShares(const SchedulingSection& scheduling);

/// The configuration in use, and where it came from. Any thread.
class LiveConfig {
 public:
  LiveConfig(ConfigSource source, const Config& config)
      : source_(std::move(source)), running_(config) {}
  LiveConfig(const LiveConfig&) = delete;
  LiveConfig& operator=(const LiveConfig&) = delete;
  ~LiveConfig() = default;

  /// Reads the source again, with what overrides it, and applies what can be. Logs the changes. An
  /// error of ReadSource or CheckSource, which name file, line and key, leaves everything as it
  /// was.
  absl::Status Reload(const LiveTargets& targets, ReloadReport& report);

  /// Until the next Reload.
  void SetLogLevel(LogLevel level);
  std::string log_level() const;
  /// server.drain_seconds.
  std::chrono::milliseconds drain_budget() const;

 private:
  const ConfigSource source_;
  mutable std::mutex mutex_;
  Config running_;  // guarded by mutex_
};

}  // namespace asymserve
