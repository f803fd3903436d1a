#include "server/server_status.h"

#include <chrono>
#include <string>

#include "server/version.h"

namespace asymserve {
namespace {

/// On a steady clock.
double SecondsSince(const Gauge& microseconds) {
  const std::chrono::duration<double> now = std::chrono::steady_clock::now().time_since_epoch();
  return now.count() - static_cast<double>(microseconds.value()) * 1e-6;
}

void FillEngine(const EngineMetrics& metrics, v1::GetStatusResponse& response) {
  response.set_sequences_running(metrics.running.value());
  response.set_sequences_waiting(metrics.waiting.value());
  response.set_pages_used(metrics.pages_used.value());
  response.set_pages_total(metrics.pages_total.value());
  response.set_slabs_used(metrics.slabs_used.value());
  response.set_slabs_cached(metrics.slabs_cached.value());
  response.set_slabs_total(metrics.slabs_total.value());
  if (metrics.last_step_us.value() != 0) {
    response.set_seconds_since_last_step(SecondsSince(metrics.last_step_us));
  }
}

void AddMemoryUse(std::string name, int64_t planned, int64_t resident,
                  v1::GetStatusResponse& response) {
  v1::MemoryUse& use = *response.add_memory();
  use.set_class_name(std::move(name));
  use.set_planned_bytes(planned);
  use.set_resident_bytes(resident);
}

void FillMemory(MemoryWatch& memory, v1::GetStatusResponse& response) {
  for (size_t i = 0; i < kLedgerRows; ++i) {
    const auto row = static_cast<LedgerRow>(i);
    v1::LedgerRow& entry = *response.add_ledger();
    entry.set_name(std::string(LedgerRowName(row)));
    entry.set_bytes(memory.ledger()[row]);
  }
  const absl::StatusOr<MemoryReport> report = memory.Report();
  if (!report.ok()) return;  // without /proc nothing is known
  for (size_t i = 0; i < kMemoryClasses; ++i) {
    AddMemoryUse(std::string(MemoryClassName(static_cast<MemoryClass>(i))),
                 report->planned.bytes[i], report->measured.resident.bytes[i], response);
  }
  AddMemoryUse("runtime", report->runtime_bound, report->runtime_resident(), response);
  response.set_process_resident_bytes(report->process_resident);
}

}  // namespace

void FillServerStatus(const ServerMetrics& metrics, const ServedModel* model,
                      v1::GetStatusResponse& response) {
  const bool draining = metrics.drain_start_us.value() != 0;
  response.set_version(std::string(kVersion));
  response.set_state(draining           ? v1::GetStatusResponse::DRAINING
                     : model == nullptr ? v1::GetStatusResponse::LOADING
                                        : v1::GetStatusResponse::SERVING);
  response.set_open_calls(metrics.open_calls.value());
  response.set_drain_budget_seconds(static_cast<double>(metrics.drain_budget_ms.value()) * 1e-3);
  if (draining) response.set_draining_seconds(SecondsSince(metrics.drain_start_us));
  if (model == nullptr) return;
  response.set_model(model->name);
  response.set_kv_scheme(model->kv.scheme);
  FillEngine(model->engine->metrics(), response);
  if (model->memory != nullptr) FillMemory(*model->memory, response);
}

}  // namespace asymserve
