#include "server/serve.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "absl/strings/str_split.h"
#include "google/protobuf/stubs/logging.h"

#include "engine/base/log.h"
#include "engine/base/status.h"
#include "engine/runtime/host_memory.h"
#include "engine/text/utf8.h"
#include "server/drain.h"
#include "server/front_end.h"
#include "server/grpc_log.h"
#include "server/memory_log.h"
#include "server/signal_watcher.h"

namespace asymserve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kHealthPoll(100);

KvQualityLimits ToLimits(const KvQualitySection& quality) {
  return {.max_mean_kl = quality.max_mean_kl, .max_copy_loss = quality.max_copy_loss};
}

LoadOptions ToLoadOptions(const Config& config) {
  LoadOptions options;
  options.path = config.model.path;
  options.memory_bytes = config.engine.memory_bytes;
  options.memory_margin_bytes = config.engine.memory_margin_bytes;
  options.kv_memory_bytes = config.engine.kv_memory_bytes;
  options.threads = config.engine.threads > 0 ? config.engine.threads : AvailableCores();
  options.kv_scheme = config.kv.scheme;
  options.kv_profile = config.kv.profile;
  options.kv_limits = ToLimits(config.kv.quality);
  options.kv_prefix_cache = config.kv.prefix_cache;
  options.kv_self_check = config.kv.quality.self_check;
  options.max_context_tokens = config.engine.context_tokens;
  options.max_running = config.engine.max_running;
  options.max_waiting = config.engine.max_waiting;
  options.step_tokens = config.engine.step_tokens;
  return options;
}

void SetScheduling(const Config& config, EngineOptions& options) {
  options.elastic = config.kv.elastic;
  options.step_us = std::llround(config.engine.step_ms * 1e3);
  options.canary_rate = config.kv.quality.canary_rate;
  options.aging_us = static_cast<int64_t>(config.scheduling.aging_seconds * 1e6);
  options.tenants = ToTenantShares(config.scheduling);
}

/// As a label and a string of protobuf, which are UTF-8; a file's name may be anything.
std::string ModelName(const Config& config, const LoadedModel& loaded) {
  const std::string& name = !config.model.name.empty()    ? config.model.name
                            : !loaded.config.name.empty() ? loaded.config.name
                                                          : loaded.config.architecture;
  std::string incomplete, valid;
  AppendUtf8(name, incomplete, valid);
  if (!incomplete.empty()) valid += kReplacementCharacter;
  return valid;
}

ServedModel Describe(const Config& config, const LoadedModel& loaded, Engine& engine) {
  ServedModel served;
  served.engine = &engine;
  served.tokenizer = loaded.tokenizer.get();
  served.chat_template = loaded.chat_template.get();
  served.chat_template_error = loaded.chat_template_error;
  served.limits.vocabulary = std::min(loaded.config.vocabulary, loaded.tokenizer->vocabulary());
  served.limits.max_context_tokens = loaded.engine_options.max_context_tokens;
  served.name = ModelName(config, loaded);
  served.architecture = loaded.config.architecture;
  served.weight_type = loaded.weight_type;
  served.layers = loaded.config.layers;
  served.weight_bytes = loaded.weight_bytes;
  served.page_tokens = loaded.engine_options.scheme.page_tokens;
  served.kv = DescribeKvCache(loaded, ToLimits(config.kv.quality));
  served.max_running = loaded.engine_options.max_running;
  return served;
}

void LogCanary(double wanted, const Engine& engine) {
  if (engine.canary_rate() > 0) {
    Log(LogLevel::kInfo, "kv_canary", {{"rate", engine.canary_rate()}});
    return;
  }
  const bool off = wanted == 0;
  Log(LogLevel::kInfo, "kv_canary",
      {{"rate", 0},
       {"hint", off ? "off: kv.quality.canary_rate is 0"
                    : "off: the KV cache is exact, or a step has no room for two more sequences"}});
}

/// Serves until a signal; OK once drained. An error is the engine's.
absl::Status ServeModel(const ServedModel& served, FrontEnd& front, SignalWatcher& signals) {
  signals.ExitOnSignal(false);
  if (signals.WaitFor(std::chrono::milliseconds(0))) return absl::OkStatus();
  LogKvCache(served.kv);
  front.service.StartServing(served);
  front.server->SetReady(true);
  Log(LogLevel::kInfo, "serving",
      {{"address", front.server->address()},
       {"model", served.name},
       {"weights", served.weight_type},
       {"kv_scheme", served.kv.scheme},
       {"kv_bits", served.kv.effective_bits},
       {"kv_cache_tokens", served.kv.capacity.tokens}});
  while (!signals.WaitFor(kHealthPoll)) {
    front.reloads.Poll(signals.TakeHangup());
    absl::Status health = served.engine->health();
    if (health.ok()) {
      served.memory->Trim();
      continue;
    }
    front.server->SetReady(false);
    front.server->Stop(std::chrono::seconds(1));
    return health;
  }
  Drain(*front.server, front.service, *served.engine, front.live.drain_budget());
  return absl::OkStatus();
}

absl::Status LoadAndServe(const Config& config, const BackendFactory& make_backend, FrontEnd& front,
                          SignalWatcher& signals, Clock::time_point start) {
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<Backend> backend, make_backend(config.engine));
  Log(LogLevel::kInfo, "device", {{"name", backend->name()}});
  absl::StatusOr<LoadedModel> loading = LoadModel(*backend, ToLoadOptions(config));
  if (!loading.ok()) {
    signals.ExitOnSignal(false);  // the error is to be told
    return loading.status();
  }
  LoadedModel loaded = *std::move(loading);
  if (!loaded.kv_profile.empty()) {
    Log(LogLevel::kInfo, "kv_profile", {{"file", loaded.kv_profile}});
  } else if (config.kv.scheme == "auto") {
    Log(LogLevel::kInfo, "kv_profile",
        {{"file", "none"},
         {"hint", "the KV cache is exact; asymserve calibrate learns a smaller one"}});
  }
  SetScheduling(config, loaded.engine_options);
  Engine engine(*loaded.model, *loaded.tokenizer, loaded.engine_options);
  LogCanary(config.kv.quality.canary_rate, engine);
  ServedModel served = Describe(config, loaded, engine);
  MemoryWatch memory(*backend, loaded.memory_plan);
  served.device = std::string(backend->name());
  served.memory = &memory;
  LogMemory(memory);
  PhaseSeconds phases = loaded.phase_seconds;
  phases.emplace_back("total", std::chrono::duration<double>(Clock::now() - start).count());
  for (const auto& [phase, seconds] : phases) {
    Log(LogLevel::kInfo, "startup", {{"phase", phase}, {"seconds", seconds}});
  }
  front.exporter->StartServing(served, std::move(phases));
  const LiveTargets targets = {engine, front.service, front.metrics};
  front.reloads.Add(
      {"config",
       {},
       [&front, &targets](ReloadReport& report) { return front.live.Reload(targets, report); },
       front.metrics.config_reloads});
  front.admin_service.StartServing(served);
  absl::Status status = ServeModel(served, front, signals);
  front.admin_service.StopServing();
  front.exporter->StopServing();
  return status;
}

absl::Status Run(const Config& config, const ConfigSource& source,
                 const BackendFactory& make_backend) {
  const Clock::time_point start = Clock::now();
  // libprotobuf would write about every malformed request; the client is told instead.
  google::protobuf::SetLogHandler(nullptr);
  TakeGrpcLog();
  RaiseDescriptorLimit();
  ASYMSERVE_ASSIGN_OR_RETURN(const std::unique_ptr<SignalWatcher> signals, SignalWatcher::Create());
  FrontEnd front(source, config, [&signals] { signals->RequestStop(); });
  ASYMSERVE_RETURN_IF_ERROR(front.Start(config));
  signals->ExitOnSignal(true);  // nothing is lost of a model that is not served yet
  absl::Status status = LoadAndServe(config, make_backend, front, *signals, start);
  front.Stop();
  return status;
}

}  // namespace

ExitStatus Serve(const Config& config, const ConfigSource& source,
                 const BackendFactory& make_backend) {
  const absl::Status status = Run(config, source, make_backend);
  if (status.ok()) {
    Log(LogLevel::kInfo, "stopped");
    return kExitOk;
  }
  // A table in a message gets a line of the log for each of its lines.
  const std::vector<std::string> lines = absl::StrSplit(std::string(status.message()), '\n');
  Log(LogLevel::kError, "failed", {{"error", lines.front()}});
  for (size_t i = 1; i < lines.size(); ++i) Log(LogLevel::kError, "failed", {{"table", lines[i]}});
  return kExitFailure;
}

}  // namespace asymserve
