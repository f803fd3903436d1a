#pragma once

#include <chrono>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "asymserve/v1/admin.grpc.pb.h"

#include "engine/base/log.h"
#include "server/key_ring.h"
#include "server/live_config.h"
#include "server/reloader.h"
#include "server/served_model.h"
#include "server/server_metrics.h"

namespace asymserve {

/// asymserve.v1.Admin. Each call is a line of the log. Any thread.
class AdminService final : public v1::Admin::CallbackService {
 public:
  /// What it acts on; all of it outlives the service.
  struct Targets {
    ServerMetrics& metrics;
    LiveConfig& config;
    Reloads& reloads;
    std::function<void()> stop;     // as SIGTERM
    const KeyRing* keys = nullptr;  // null: nobody needs one
  };

  explicit AdminService(Targets targets) : targets_(std::move(targets)) {}

  const KeyRing* keys() const { return targets_.keys; }

  /// `model`, and what is reloaded, live until StopServing, which waits for calls that use them.
  void StartServing(const ServedModel& model);
  void StopServing();

  using Context = grpc::CallbackServerContext;
  grpc::ServerUnaryReactor* GetStatus(Context* context, const v1::GetStatusRequest* request,
                                      v1::GetStatusResponse* response) override;
  grpc::ServerUnaryReactor* Drain(Context* context, const v1::DrainRequest* request,
                                  v1::DrainResponse* response) override;
  grpc::ServerUnaryReactor* Reload(Context* context, const v1::ReloadRequest* request,
                                   v1::ReloadResponse* response) override;
  grpc::ServerUnaryReactor* SetLogLevel(Context* context, const v1::SetLogLevelRequest* request,
                                        v1::SetLogLevelResponse* response) override;
  grpc::ServerUnaryReactor* DropPrefixCache(Context* context,
                                            const v1::DropPrefixCacheRequest* request,
                                            v1::DropPrefixCacheResponse* response) override;

 private:
  struct Call {
    Context& context;
    std::string_view method;
    LogLevel level = LogLevel::kWarn;  // of its line
    std::string detail = {};           // what is done, for the line
    std::string key = "-";             // its holder
  };
  /// UNAUTHENTICATED counts.
  grpc::Status Identify(Call& call) const;
  static void WriteLine(const Call& call, const grpc::Status& status);
  /// Runs `handle()` for who may call, logs the call, then runs `then()` if it went well.
  template <typename Handle, typename Then>
  grpc::ServerUnaryReactor* Answer(Call& call, const Handle& handle, const Then& then) const;
  template <typename Handle>
  grpc::ServerUnaryReactor* Answer(Call& call, const Handle& handle) const {
    return Answer(call, handle, [] {});
  }

  const Targets targets_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;                    // held while the model is used
  const ServedModel* model_ = nullptr;  // guarded by mutex_
};

}  // namespace asymserve
