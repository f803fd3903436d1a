#include "server/admin_service.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grpc/grpc_security_constants.h"

#include "config/yaml_entries.h"
#include "server/authentication.h"
#include "server/log_rate.h"
#include "server/rpc_status.h"
#include "server/server_status.h"
#include "server/trace_context.h"

namespace asymserve {
namespace {

std::string_view View(const grpc::string_ref& text) {
  return {text.data(), text.size()};
}

std::string_view CodeName(const grpc::Status& status) {
  const auto code = static_cast<size_t>(status.error_code());
  return kCodeNames[code < kCodeNames.size() ? code : 2];
}

/// The name in the certificate that the client showed.
std::string CertificateName(const grpc::ServerContextBase& context) {
  const auto authentication = context.auth_context();
  if (authentication == nullptr) return "-";
  const auto names = authentication->FindPropertyValues(GRPC_X509_CN_PROPERTY_NAME);
  return names.empty() ? "-" : Printable(View(names.front()));
}

absl::Status NoModel() {
  return absl::UnavailableError("the model is still loading, or the server stops");
}

}  // namespace

void AdminService::StartServing(const ServedModel& model) {
  const std::lock_guard lock(mutex_);
  model_ = &model;
}

void AdminService::StopServing() {
  const std::lock_guard lock(mutex_);
  model_ = nullptr;
}

grpc::Status AdminService::Identify(Call& call) const {
  if (targets_.keys == nullptr) return grpc::Status::OK;
  const auto begin = std::chrono::steady_clock::now();
  PresentedKey presented;
  for (const auto& [name, value] : call.context.client_metadata()) {
    presented.Add(View(name), View(value));
  }
  const Authentication who = Authenticate(*targets_.keys, presented);
  if (who.holder != nullptr) {
    call.key = who.holder->name;
    return grpc::Status::OK;
  }
  targets_.metrics.rejections[static_cast<size_t>(who.reason)].Add();
  targets_.metrics.refusal_seconds.Observe(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  return {grpc::StatusCode::UNAUTHENTICATED, who.message};
}

void AdminService::WriteLine(const Call& call, const grpc::Status& status) {
  static LogRate strangers;
  LogLevel level = status.ok() ? call.level : LogLevel::kWarn;
  int64_t left_out = 0;
  if (status.error_code() == grpc::StatusCode::UNAUTHENTICATED) {
    const std::optional<int64_t> admitted = strangers.Admit(LogRate::Clock::now());
    if (!admitted.has_value()) level = LogLevel::kDebug;
    left_out = admitted.value_or(0);
  }
  const TraceContext trace = TraceContextOf(call.context.client_metadata());
  Log(level, "admin_call",
      {{"method", call.method},
       {"code", CodeName(status)},
       {"detail", status.ok() ? call.detail : status.error_message()},
       {"key", call.key},
       {"certificate", CertificateName(call.context)},
       {"peer", call.context.peer()},
       {"trace_id", trace.trace_id},
       {"parent_id", trace.parent_id},
       {"left_out", left_out}});
}

template <typename Handle, typename Then>
grpc::ServerUnaryReactor* AdminService::Answer(Call& call, const Handle& handle,
                                               const Then& then) const {
  grpc::Status status = Identify(call);
  if (status.ok()) status = ToGrpcStatus(handle());
  WriteLine(call, status);
  if (status.ok()) then();
  grpc::ServerUnaryReactor* const reactor = call.context.DefaultReactor();
  reactor->Finish(status);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::GetStatus(Context* context,
                                                  const v1::GetStatusRequest* /*request*/,
                                                  v1::GetStatusResponse* response) {
  Call call = {.context = *context, .method = "GetStatus", .level = LogLevel::kInfo};
  return Answer(call, [&] {
    const std::lock_guard lock(mutex_);
    FillServerStatus(targets_.metrics, model_, *response);
    const std::chrono::duration<double> uptime = std::chrono::steady_clock::now() - start_;
    response->set_uptime_seconds(uptime.count());
    response->set_log_level(targets_.config.log_level());
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::Drain(Context* context, const v1::DrainRequest* /*request*/,
                                              v1::DrainResponse* response) {
  Call call = {.context = *context, .method = "Drain"};
  const auto describe = [&] {
    const std::lock_guard lock(mutex_);
    if (model_ != nullptr) {
      const EngineMetrics& metrics = model_->engine->metrics();
      response->set_sequences_running(metrics.running.value());
      response->set_sequences_waiting(metrics.waiting.value());
    }
    const std::chrono::duration<double> budget = targets_.config.drain_budget();
    response->set_budget_seconds(budget.count());
    return absl::OkStatus();
  };
  return Answer(call, describe, [&] { targets_.stop(); });
}

grpc::ServerUnaryReactor* AdminService::Reload(Context* context,
                                               const v1::ReloadRequest* /*request*/,
                                               v1::ReloadResponse* response) {
  Call call = {.context = *context, .method = "Reload"};
  return Answer(call, [&]() -> absl::Status {
    const std::lock_guard lock(mutex_);
    if (model_ == nullptr) return NoModel();
    for (const Reloads::Outcome& outcome : targets_.reloads.Poll(true)) {
      v1::ReloadResponse::Part& part = *response->add_parts();
      part.set_what(outcome.what);
      part.set_error(std::string(outcome.status.message()));
      absl::StrAppend(&call.detail, call.detail.empty() ? "" : ", ", outcome.what,
                      outcome.status.ok() ? ": ok" : ": failed");
      for (const std::string& change : outcome.report.changed) response->add_changed(change);
      for (const std::string& change : outcome.report.needs_restart) {
        response->add_needs_restart(change);
      }
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdminService::SetLogLevel(Context* context,
                                                    const v1::SetLogLevelRequest* request,
                                                    v1::SetLogLevelResponse* response) {
  Call call = {.context = *context, .method = "SetLogLevel"};
  const std::optional<LogLevel> level = ParseLogLevel(request->level());
  const bool hides_its_line = level.has_value() && *level > call.level;
  const auto set = [&] { targets_.config.SetLogLevel(*level); };
  const auto check = [&]() -> absl::Status {
    if (!level.has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "level: expected one of debug, info, warn, error, off, got ", Quoted(request->level())));
    }
    response->set_previous(targets_.config.log_level());
    call.detail = absl::StrCat(response->previous(), " -> ", request->level());
    if (!hides_its_line) set();
    return absl::OkStatus();
  };
  return Answer(call, check, [&] {
    if (hides_its_line) set();
  });
}

grpc::ServerUnaryReactor* AdminService::DropPrefixCache(
    Context* context, const v1::DropPrefixCacheRequest* /*request*/,
    v1::DropPrefixCacheResponse* response) {
  Call call = {.context = *context, .method = "DropPrefixCache"};
  return Answer(call, [&]() -> absl::Status {
    const std::lock_guard lock(mutex_);
    if (model_ == nullptr) return NoModel();
    response->set_slabs(model_->engine->metrics().slabs_cached.value());
    call.detail = absl::StrCat(response->slabs(), " slabs");
    model_->engine->DropPrefixCache();
    return absl::OkStatus();
  });
}

}  // namespace asymserve
