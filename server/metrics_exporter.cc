#include "server/metrics_exporter.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <optional>

#include "absl/strings/str_cat.h"

#include "server/metric_families.h"
#include "server/version.h"

namespace asymserve {
namespace {

using prometheus::MetricType;

double Value(const Counter& counter) {
  return static_cast<double>(counter.value());
}

double Value(const Gauge& gauge) {
  return static_cast<double>(gauge.value());
}

/// On a steady clock; 0 for a time that was never set.
double SecondsSince(const Gauge& microseconds) {
  if (microseconds.value() == 0) return 0;
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return (std::chrono::duration<double, std::micro>(now).count() - Value(microseconds)) * 1e-6;
}

/// Codes that say that the server failed, not its client.
bool IsFailure(size_t code) {
  return kCodeNames[code] == "UNKNOWN" || kCodeNames[code] == "INTERNAL" ||
         kCodeNames[code] == "UNAVAILABLE" || kCodeNames[code] == "DATA_LOSS";
}

/// No sample for a port that has nothing of the kind.
void AddExpiry(const ServerMetrics& metrics, MetricFamilies& families) {
  const auto add = [&](const char* name, const char* help, Gauge ExpiryMetrics::*seconds) {
    families.Open(name, help, MetricType::Gauge);
    const std::pair<Labels, const ExpiryMetrics*> ports[] = {
        {{}, &metrics.expiry}, {{{"port", "admin"}}, &metrics.admin_expiry}};
    for (const auto& [labels, port] : ports) {
      const Gauge& gauge = port->*seconds;
      if (gauge.value() != 0) families.Sample(labels, Value(gauge));
    }
  };
  add("asymserve_tls_certificate_not_after_seconds",
      "When a port's certificate expires, in seconds since 1970.", &ExpiryMetrics::certificate_s);
  add("asymserve_tls_client_authority_not_after_seconds",
      "When the first of a port's client authorities expires, in seconds since 1970.",
      &ExpiryMetrics::client_authority_s);
  add("asymserve_api_key_not_after_seconds",
      "When the first of a port's API keys expires, in seconds since 1970.",
      &ExpiryMetrics::api_key_s);
}

/// All reasons and methods from the start, so that a rate() needs no first event; of the codes OK
/// and the failures, the others once they occurred.
void AddServer(const ServerMetrics& metrics, MetricFamilies& families) {
  families.Gauge("asymserve_build_info", "Constant 1; the version is a label.", 1,
                 {{"version", std::string(kVersion)}});
  families.Open("asymserve_requests_total", "Calls that ended, by method and gRPC status code.",
                MetricType::Counter);
  for (size_t method = 0; method < kMethodNames.size(); ++method) {
    for (size_t code = 0; code < kCodeNames.size(); ++code) {
      const double value = Value(metrics.requests[method][code]);
      if (value == 0 && code != 0 && !IsFailure(code)) continue;
      families.Sample(
          {{"method", std::string(kMethodNames[method])}, {"code", std::string(kCodeNames[code])}},
          value);
    }
  }
  families.Open("asymserve_rejections_total", "Calls refused before the engine took them.",
                MetricType::Counter);
  for (size_t reason = 0; reason < kRejectionNames.size(); ++reason) {
    families.Sample({{"reason", std::string(kRejectionNames[reason])}},
                    Value(metrics.rejections[reason]));
  }
  families.Histogram("asymserve_refusal_seconds",
                     "Of those calls, from the handler to the status that gRPC gets.",
                     metrics.refusal_seconds);
  families.Counter("asymserve_slow_readers_total",
                   "Streams ended because the client did not keep up.",
                   Value(metrics.slow_readers));
  families.Counter(
      "asymserve_refused_connections_total",
      "Connections closed at once: as many as may be were open, or too few descriptors "
      "were left.",
      Value(metrics.refused_connections));
  families.Open("asymserve_reloads_total",
                "Files read again while serving; after an error the old ones stay in use.",
                MetricType::Counter);
  const std::pair<const char*, const ReloadMetrics*> reloads[] = {
      {"tls", &metrics.tls_reloads},
      {"api_keys", &metrics.key_reloads},
      {"config", &metrics.config_reloads},
      {"admin_tls", &metrics.admin_tls_reloads},
      {"admin_api_keys", &metrics.admin_key_reloads}};
  for (const auto& [what, counts] : reloads) {
    families.Sample({{"what", what}, {"result", "ok"}}, Value(counts->done));
    families.Sample({{"what", what}, {"result", "error"}}, Value(counts->failed));
  }
  families.Gauge("asymserve_api_keys", "API keys in use; 0: none is asked for, or nobody may call.",
                 Value(metrics.api_keys));
  AddExpiry(metrics, families);
  families.Gauge("asymserve_open_calls", "Calls that have not ended.", Value(metrics.open_calls));
  families.Gauge("asymserve_drain_budget_seconds", "What a drain may take (server.drain_seconds).",
                 Value(metrics.drain_budget_ms) * 1e-3);
  families.Gauge("asymserve_draining_seconds",
                 "Since the drain began; 0 while new calls are taken.",
                 SecondsSince(metrics.drain_start_us));
}

void AddTokens(const EngineMetrics& metrics, MetricFamilies& families) {
  families.Counter("asymserve_prompt_tokens_total", "Prompt tokens computed.",
                   Value(metrics.prompt_tokens));
  families.Counter("asymserve_generated_tokens_total", "Tokens generated.",
                   Value(metrics.generated_tokens));
  families.Counter("asymserve_recomputed_tokens_total", "Tokens computed again after a preemption.",
                   Value(metrics.recomputed_tokens));
  families.Counter("asymserve_cached_tokens_total",
                   "Prompt tokens that were not computed, for the prefix cache held them.",
                   Value(metrics.cached_tokens));
  families.Counter("asymserve_prefix_cache_evictions_total",
                   "Groups of records that the prefix cache gave up for room.",
                   Value(metrics.cache_evictions));
  families.Counter("asymserve_admission_blocked_steps_total",
                   "Steps in which the first that waits found no room in KV memory.",
                   Value(metrics.blocked_steps));
  families.Counter("asymserve_preemptions_total", "Sequences that lost their KV pages to another.",
                   Value(metrics.preemptions));
  families.Counter("asymserve_kv_degraded_sequences_total",
                   "Sequences kept with less precision for want of KV memory (kv.elastic).",
                   Value(metrics.degraded));
  families.Counter("asymserve_steps_total", "Steps of the engine.", Value(metrics.steps));
  families.Open("asymserve_sequences_finished_total", "Sequences that ended, by finish reason.",
                MetricType::Counter);
  const std::pair<const char*, const Counter*> reasons[] = {
      {"eos", &metrics.finished_eos},           {"stop", &metrics.finished_stop},
      {"length", &metrics.finished_length},     {"cancelled", &metrics.finished_cancelled},
      {"deadline", &metrics.finished_deadline}, {"queue_timeout", &metrics.finished_queue_timeout},
      {"error", &metrics.finished_error},
  };
  for (const auto& [reason, counter] : reasons) {
    families.Sample({{"reason", reason}}, Value(*counter));
  }
}

/// By configured tenant; all others share a label.
void AddTenants(const EngineMetrics& metrics, MetricFamilies& families) {
  const auto family = [&](const char* name, const char* help, MetricType type, auto value) {
    families.Open(name, help, type);
    for (const TenantMetrics& tenant : metrics.tenants) {
      families.Sample({{"tenant", tenant.name}}, value(tenant));
    }
  };
  family("asymserve_tenant_sequences_total", "Sequences accepted, by tenant.", MetricType::Counter,
         [](const TenantMetrics& tenant) { return Value(tenant.sequences); });
  family("asymserve_tenant_prompt_tokens_total", "Prompt tokens of admitted sequences, by tenant.",
         MetricType::Counter,
         [](const TenantMetrics& tenant) { return Value(tenant.prompt_tokens); });
  family("asymserve_tenant_generated_tokens_total", "Tokens generated, by tenant.",
         MetricType::Counter,
         [](const TenantMetrics& tenant) { return Value(tenant.generated_tokens); });
  family("asymserve_tenant_sequences_waiting", "Sequences that have not run yet, by tenant.",
         MetricType::Gauge, [](const TenantMetrics& tenant) { return Value(tenant.waiting); });
}

void AddLatencies(const EngineMetrics& metrics, MetricFamilies& families) {
  families.Histogram("asymserve_queue_seconds",
                     "From acceptance to a sequence's first step, or its end without one.",
                     metrics.queue_seconds);
  families.Histogram("asymserve_time_to_first_token_seconds",
                     "From acceptance to a sequence's first token.", metrics.time_to_first_token);
  families.Histogram("asymserve_inter_token_seconds", "Between two tokens of a sequence.",
                     metrics.inter_token);
  families.Histogram("asymserve_end_to_end_seconds", "From acceptance to a sequence's end.",
                     metrics.end_to_end);
  families.Open("asymserve_step_seconds",
                "Engine steps: prefill has prompt tokens in it, decode has none.",
                MetricType::Histogram);
  families.Sample({{"phase", "prefill"}}, metrics.step_prefill_seconds);
  families.Sample({{"phase", "decode"}}, metrics.step_decode_seconds);
  families.Histogram("asymserve_cancel_to_free_seconds",
                     "From a cancellation to the release of the pages.",
                     metrics.cancel_to_free_seconds);
}

void AddState(const EngineMetrics& metrics, MetricFamilies& families) {
  const double used = Value(metrics.pages_used);
  families.Gauge("asymserve_sequences_waiting", "Sequences in the queue.", Value(metrics.waiting));
  families.Gauge("asymserve_sequences_running", "Sequences in the batch.", Value(metrics.running));
  families.Open(
      "asymserve_kv_pages",
      "Pages of 64 tokens in the page tables of sequences, those that sequences share once "
      "for each. What they take of the arena depends on their records: "
      "asymserve_kv_slabs.",
      MetricType::Gauge);
  families.Sample({{"state", "used"}}, used);
  const double slabs = Value(metrics.slabs_used);
  families.Open(
      "asymserve_kv_slabs",
      "Slabs of the KV arena by state; cached: only finished prompts, room when it is needed.",
      MetricType::Gauge);
  families.Sample({{"state", "used"}}, slabs);
  const double cached = Value(metrics.slabs_cached);
  families.Sample({{"state", "cached"}}, cached);
  families.Sample({{"state", "free"}}, Value(metrics.slabs_total) - slabs - cached);
  families.Gauge("asymserve_seconds_since_last_step",
                 "Since the engine's newest step; -1 before the first.",
                 metrics.last_step_us.value() == 0 ? -1 : SecondsSince(metrics.last_step_us));
}

/// What of the KV arena sequences hold.
void AddKvUse(const KvCacheInfo& kv, const EngineMetrics& metrics, MetricFamilies& families) {
  families.Open("asymserve_kv_used_bytes",
                "Bytes of the records that sequences hold, shared ones once: near are pages before "
                "they are sealed, and all of exact sequences; sealed ones are read together with "
                "their refinement while they have one.",
                MetricType::Gauge);
  constexpr std::array<const char*, 3> kRecords = {"near", "sealed", "refinement"};
  constexpr std::array<const char*, 2> kTensors = {"key", "value"};
  for (size_t record = 0; record < kRecords.size(); ++record) {
    for (size_t tensor = 0; tensor < kTensors.size(); ++tensor) {
      families.Sample({{"record", kRecords[record]}, {"tensor", kTensors[tensor]}},
                      Value(metrics.records_used[record]) *
                          static_cast<double>(kv.record_bytes[record][tensor]));
    }
  }
}

/// What the KV cache is, costs and holds; all of it is fixed at start.
void AddKvCache(const KvCacheInfo& kv, MetricFamilies& families) {
  families.Gauge(
      "asymserve_kv_info",
      "Constant 1; how keys and values are stored, and the tier of the profile that this "
      "is (empty: a built-in scheme), as labels.",
      1, {{"scheme", kv.scheme}, {"tier", kv.tier}});
  families.Open("asymserve_kv_bytes_per_element",
                "Bytes per key or value element, an eighth of the bits: of sealed pages, of their "
                "keys and values alone, and in all of a sequence of the whole context.",
                MetricType::Gauge);
  families.Sample({{"of", "sealed"}}, kv.sealed_bits / 8);
  families.Sample({{"of", "sealed_keys"}}, kv.sealed_tensor_bits[0] / 8);
  families.Sample({{"of", "sealed_values"}}, kv.sealed_tensor_bits[1] / 8);
  families.Sample({{"of", "sequence"}}, kv.effective_bits / 8);

  const auto sample = [&families](const char* loss, const std::optional<double>& value) {
    if (value.has_value()) families.Sample({{"loss", loss}}, *value);
  };
  const auto limit = [](double nats) {
    return nats > 0 ? std::optional<double>(nats) : std::nullopt;
  };
  families.Open("asymserve_kv_loss_estimate_nats",
                "What the scheme costs per token, the highest of the measured texts: mean_kl is "
                "KL(exact || scheme), copy the negative log-likelihood of a passage read again, "
                "self_check the mean KL measured at start. No sample where nothing was measured.",
                MetricType::Gauge);
  sample("mean_kl", kv.mean_kl);
  sample("copy", kv.copy_loss);
  sample("self_check", kv.self_check_kl);
  families.Open(
      "asymserve_kv_loss_limit_nats",
      "What the losses of a tier may be at most (kv.quality). No sample where there is no "
      "limit.",
      MetricType::Gauge);
  sample("mean_kl", limit(kv.limits.max_mean_kl));
  sample("copy", limit(kv.limits.max_copy_loss));

  families.Open(
      "asymserve_kv_capacity_tokens",
      "Tokens of one sequence that has the KV cache alone: as it is stored, and if the same "
      "memory held an exact cache.",
      MetricType::Gauge);
  families.Sample({{"cache", "served"}}, static_cast<double>(kv.capacity.tokens));
  families.Sample({{"cache", "exact"}}, static_cast<double>(kv.exact_capacity.tokens));
  const std::pair<std::string, std::string> length = {"tokens", absl::StrCat(kv.sequence_tokens)};
  families.Open(
      "asymserve_kv_capacity_sequences",
      "Sequences of `tokens` tokens that the KV cache holds at once: as it is stored, and "
      "if the same memory held an exact cache.",
      MetricType::Gauge);
  families.Sample({{"cache", "served"}, length}, static_cast<double>(kv.capacity.sequences));
  families.Sample({{"cache", "exact"}, length}, static_cast<double>(kv.exact_capacity.sequences));
}

/// What live requests lose, by comparing some of them with exact (engine/runtime/canary.h).
void AddCanary(const ServedModel& model, MetricFamilies& families) {
  const CanaryMetrics& canary = model.engine->metrics().canary;
  const Labels labels = {{"model", model.name}, {"scheme", model.kv.scheme}};
  const auto with = [&labels](const char* name, const char* value) {
    Labels more = labels;
    more.emplace_back(name, value);
    return more;
  };
  families.Gauge("asymserve_kv_canary_rate",
                 "Share of the requests that are compared with exact; 0: the canary is off.",
                 model.engine->canary_rate(), labels);
  families.Open("asymserve_kv_canary_kl_nats",
                "KL(exact || scheme) of each token that the canary compared.",
                MetricType::Histogram);
  families.Sample(labels, canary.kl);
  families.Open("asymserve_kv_canary_tokens_total",
                "Those tokens, by whether the likeliest one is the same with exact.",
                MetricType::Counter);
  families.Sample(with("same_top1", "true"), Value(canary.same_top));
  families.Sample(with("same_top1", "false"), Value(canary.other_top));
  families.Open(
      "asymserve_kv_canary_requests_total",
      "Requests that the canary chose, by result. finished: every token was compared. Not "
      "begun: incomplete (cancelled, late or failed), degraded (see kv.elastic), busy "
      "(with another), no_memory. "
      "Given up: memory_wanted, steps_wanted (by users' requests), failed (logits that "
      "are not finite), stopped (the server).",
      MetricType::Counter);
  const std::pair<const char*, const Counter&> results[] = {{"finished", canary.finished},
                                                            {"incomplete", canary.incomplete},
                                                            {"degraded", canary.degraded},
                                                            {"busy", canary.busy},
                                                            {"no_memory", canary.no_memory},
                                                            {"memory_wanted", canary.memory_wanted},
                                                            {"steps_wanted", canary.steps_wanted},
                                                            {"failed", canary.failed},
                                                            {"stopped", canary.stopped}};
  for (const auto& [name, counter] : results) {
    families.Sample(with("result", name), Value(counter));
  }
}

/// The plan, and what the kernel says of it.
void AddMemory(MemoryWatch& memory, MetricFamilies& families) {
  const absl::StatusOr<MemoryReport> report = memory.Report();
  if (!report.ok()) return;  // without /proc nothing is known
  const auto each = [&](const MemoryBytes& bytes) {
    for (size_t i = 0; i < kMemoryClasses; ++i) {
      families.Sample({{"class", MemoryClassName(static_cast<MemoryClass>(i))}},
                      static_cast<double>(bytes.bytes[i]));
    }
  };
  families.Open("asymserve_memory_planned_bytes",
                "What the plan at start expects, by class of memory; runtime, the rest of the "
                "process, is a bound.",
                MetricType::Gauge);
  each(report->planned);
  families.Sample({{"class", "runtime"}}, static_cast<double>(report->runtime_bound));
  families.Open("asymserve_memory_measured_bytes",
                "What the kernel has mapped, by class of memory; of runtime what is resident.",
                MetricType::Gauge);
  each(report->measured.mapped);
  families.Sample({{"class", "runtime"}}, static_cast<double>(report->runtime_resident()));
  families.Open("asymserve_memory_resident_bytes",
                "What of it is in memory: pages of the KV cache once they were written.",
                MetricType::Gauge);
  each(report->measured.resident);
  if (report->room.has_value()) {
    families.Open("asymserve_device_memory_bytes",
                  "Memory of the device, other processes' included, as its driver counts it. No "
                  "sample where the model runs in the host's memory.",
                  MetricType::Gauge);
    families.Sample({{"state", "free"}}, static_cast<double>(report->room->free_bytes));
    families.Sample({{"state", "total"}}, static_cast<double>(report->room->total_bytes));
  }
  families.Gauge("asymserve_memory_process_resident_bytes", "All of the process in memory.",
                 static_cast<double>(report->process_resident));
  families.Open("asymserve_memory_ledger_bytes",
                "What the memory of the process is planned to be used for; the rows sum to the "
                "budget.",
                MetricType::Gauge);
  for (size_t i = 0; i < kLedgerRows; ++i) {
    const auto row = static_cast<LedgerRow>(i);
    families.Sample({{"row", LedgerRowName(row)}}, static_cast<double>(memory.ledger()[row]));
  }
}

/// Names that the Gateway API inference extension and llm-d look for.
void AddAliases(const ServedModel& model, MetricFamilies& families) {
  const EngineMetrics& metrics = model.engine->metrics();
  const double total = Value(metrics.slabs_total);
  const Labels labels = {{"model_name", model.name}};
  families.Gauge("vllm:num_requests_waiting", "Alias of asymserve_sequences_waiting.",
                 Value(metrics.waiting), labels);
  families.Gauge("vllm:num_requests_running", "Alias of asymserve_sequences_running.",
                 Value(metrics.running), labels);
  families.Gauge("vllm:kv_cache_usage_perc", "Used share of the KV arena, 0 to 1.",
                 total == 0 ? 0 : Value(metrics.slabs_used) / total, labels);
  families.Gauge("vllm:cache_config_info", "Constant 1; page size in tokens and pages as labels.",
                 1,
                 {{"block_size", absl::StrCat(model.page_tokens)},
                  {"num_gpu_blocks", absl::StrCat(metrics.pages_total.value())}});
}

/// By the conventions of OpenTelemetry: gen_ai.server.*, as Prometheus writes such names. Codes as
/// in asymserve_requests_total, but no series for failures that have not occurred.
void AddGenAi(const ServerMetrics& metrics, const std::string& model, MetricFamilies& families) {
  const auto each = [&](const char* name, const char* help, const auto& sample) {
    families.Open(name, help, MetricType::Histogram);
    for (size_t i = 0; i < kOperationNames.size(); ++i) {
      sample(Labels{{"gen_ai_operation_name", std::string(kOperationNames[i])},
                    {"gen_ai_provider_name", "asymserve"},
                    {"gen_ai_request_model", model}},
             metrics.operations[i]);
    }
  };
  each("gen_ai_server_request_duration_seconds",
       "Calls that generate, from the handler to their status, which is error_type if it is not "
       "OK.",
       [&](Labels labels, const OperationMetrics& operation) {
         families.Sample(labels, operation.request_duration[0]);
         labels.emplace_back("error_type", "");
         for (size_t code = 1; code < kCodeNames.size(); ++code) {
           if (operation.request_duration[code].count() == 0) continue;
           labels.back().second = kCodeNames[code];
           families.Sample(labels, operation.request_duration[code]);
         }
       });
  each("gen_ai_server_time_to_first_token_seconds",
       "Of those that ended with OK, from acceptance to the first token of the first sequence.",
       [&](const Labels& labels, const OperationMetrics& operation) {
         families.Sample(labels, operation.time_to_first_token);
       });
  each("gen_ai_server_time_per_output_token_seconds",
       "The mean of a call over the tokens after the first: one observation for a call, where "
       "asymserve_inter_token_seconds has one for a token.",
       [&](const Labels& labels, const OperationMetrics& operation) {
         families.Sample(labels, operation.time_per_output_token);
       });
}

}  // namespace

MetricsExporter::MetricsExporter(const ServerMetrics& metrics)
    : metrics_(metrics),
      started_(std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch())
                   .count()) {}

void MetricsExporter::StartServing(const ServedModel& model, PhaseSeconds phases) {
  std::lock_guard lock(mutex_);
  model_ = &model;
  phases_ = std::move(phases);
}

void MetricsExporter::StopServing() {
  std::lock_guard lock(mutex_);
  model_ = nullptr;
}

std::vector<prometheus::MetricFamily> MetricsExporter::Collect() const {
  MetricFamilies families;
  families.Gauge("asymserve_start_time_seconds", "When this process started, in Unix time.",
                 started_);
  AddServer(metrics_, families);
  std::lock_guard lock(mutex_);  // the engine lives while this is held
  if (model_ != nullptr) {
    const EngineMetrics& metrics = model_->engine->metrics();
    AddTokens(metrics, families);
    AddTenants(metrics, families);
    AddLatencies(metrics, families);
    AddState(metrics, families);
    families.Gauge("asymserve_device_info", "Constant 1; what the model runs on, as a label.", 1,
                   {{"device", model_->device}});
    AddKvUse(model_->kv, model_->engine->metrics(), families);
    AddKvCache(model_->kv, families);
    AddCanary(*model_, families);
    if (model_->memory != nullptr) AddMemory(*model_->memory, families);
    AddAliases(*model_, families);
    AddGenAi(metrics_, model_->name, families);
    families.Open("asymserve_startup_seconds", "Start-up by phase.", MetricType::Gauge);
    for (const auto& [phase, seconds] : phases_) families.Sample({{"phase", phase}}, seconds);
  }
  return families.Take();
}

}  // namespace asymserve
