#include "server/front_end.h"

#include <chrono>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/log.h"
#include "engine/base/status.h"
#include "server/tls_files.h"

namespace asymserve {
namespace {

std::unique_ptr<KeyRing> MakeKeys(const std::string& file) {
  return file.empty() ? nullptr : std::make_unique<KeyRing>(file);
}

std::vector<std::string> FilesOf(const TlsSection& tls) {
  return {tls.cert_file, tls.key_file, tls.client_ca_file};
}

void LogListening(std::string_view event, const GrpcServer& server, const TlsSection& tls,
                  const KeyRing* keys) {
  Log(LogLevel::kInfo, event,
      {{"address", server.address()},
       {"tls", !tls.cert_file.empty()},
       {"api_keys", keys == nullptr ? uint64_t{0} : uint64_t{keys->size()}}});
}

}  // namespace

FrontEnd::FrontEnd(const ConfigSource& source, const Config& config, std::function<void()> stop)
    : live(source, config),
      keys(MakeKeys(config.server.api_keys_file)),
      admin_keys(MakeKeys(config.admin.address.empty() ? "" : config.admin.api_keys_file)),
      service(metrics, {.max_unread_deltas = config.server.stream_queue_messages}, keys.get()),
      admin_service({.metrics = metrics,
                     .config = live,
                     .reloads = reloads,
                     .stop = std::move(stop),
                     .keys = admin_keys.get()}),
      exporter(std::make_shared<MetricsExporter>(metrics)) {
  metrics.drain_budget_ms.Set(std::llround(config.server.drain_seconds * 1e3));
  if (keys == nullptr || admin_keys == nullptr) return;
  keys->Exclude(*admin_keys);
  admin_keys->Exclude(*keys);
}

absl::Status FrontEnd::ReadKeys() {
  ASYMSERVE_RETURN_IF_ERROR(Annotate(keys->Reload(), "server.api_keys_file"));
  metrics.api_keys.Set(static_cast<int64_t>(keys->size()));
  metrics.expiry.api_key_s.Set(keys->first_expiry());
  return absl::OkStatus();
}

absl::Status FrontEnd::ReadAdminKeys() {
  ASYMSERVE_RETURN_IF_ERROR(Annotate(admin_keys->Reload(), "admin.api_keys_file"));
  metrics.admin_expiry.api_key_s.Set(admin_keys->first_expiry());
  return absl::OkStatus();
}

/// Before the files are read: later changes are seen.
void FrontEnd::WatchFiles(const Config& config) {
  if (!config.server.tls.cert_file.empty()) {
    reloads.Add({"tls", FilesOf(config.server.tls),
                 [this, &config](ReloadReport&) {
                   ASYMSERVE_RETURN_IF_ERROR(CheckOperatorAuthorities(config));
                   return server->ReloadTls();
                 },
                 metrics.tls_reloads});
  }
  if (keys != nullptr) {
    reloads.Add({"api_keys",
                 {config.server.api_keys_file},
                 [this](ReloadReport&) { return ReadKeys(); },
                 metrics.key_reloads});
  }
  if (config.admin.address.empty()) return;
  if (!config.admin.tls.cert_file.empty()) {
    reloads.Add({"admin_tls", FilesOf(config.admin.tls),
                 [this, &config](ReloadReport&) {
                   ASYMSERVE_RETURN_IF_ERROR(CheckOperatorAuthorities(config));
                   return admin->ReloadTls();
                 },
                 metrics.admin_tls_reloads});
  }
  if (admin_keys != nullptr) {
    reloads.Add({"admin_api_keys",
                 {config.admin.api_keys_file},
                 [this](ReloadReport&) { return ReadAdminKeys(); },
                 metrics.admin_key_reloads});
  }
}

absl::Status FrontEnd::Start(const Config& config) {
  WatchFiles(config);
  if (keys != nullptr) ASYMSERVE_RETURN_IF_ERROR(ReadKeys());
  if (admin_keys != nullptr) ASYMSERVE_RETURN_IF_ERROR(ReadAdminKeys());
  ASYMSERVE_RETURN_IF_ERROR(CheckOperatorAuthorities(config));
  ASYMSERVE_ASSIGN_OR_RETURN(server, GrpcServer::Start(config.server, service, metrics));
  LogListening("listening", *server, config.server.tls, keys.get());
  if (!config.admin.address.empty()) {
    ASYMSERVE_ASSIGN_OR_RETURN(
        admin, GrpcServer::StartAdmin(config.admin, config.server, admin_service, metrics));
    LogListening("admin", *admin, config.admin.tls, admin_keys.get());
  }
  if (config.metrics.address.empty()) return absl::OkStatus();
  ASYMSERVE_ASSIGN_OR_RETURN(endpoint, MetricsEndpoint::Start(config.metrics.address, exporter));
  Log(LogLevel::kInfo, "metrics", {{"address", endpoint->address()}});
  return absl::OkStatus();
}

void FrontEnd::Stop() {
  server->Stop(std::chrono::milliseconds(0));
  if (admin != nullptr) admin->Stop(std::chrono::milliseconds(0));
}

}  // namespace asymserve
