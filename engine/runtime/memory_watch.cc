#include "engine/runtime/memory_watch.h"

#include "engine/base/kernel_memory.h"
#include "engine/base/status.h"

namespace asymserve {
namespace {

constexpr std::chrono::seconds kInterval(5);

}  // namespace

MemoryWatch::MemoryWatch(const Backend& backend, const MemoryPlan& plan)
    : backend_(backend), ledger_(plan.ledger), host_bytes_(plan.host_bytes) {
  report_.planned[MemoryClass::kWeights] = ledger_[LedgerRow::kWeights];
  report_.planned[MemoryClass::kTables] = ledger_[LedgerRow::kTables];
  report_.planned[MemoryClass::kWorkspace] = ledger_[LedgerRow::kWorkspace];
  report_.planned[MemoryClass::kKv] = ledger_.kv_bytes();
  report_.runtime_bound = host_bytes_ > 0 ? host_bytes_ : ledger_[LedgerRow::kRuntime];
}

absl::StatusOr<MemoryReport> MemoryWatch::Report() {
  std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return report_;
  ASYMSERVE_ASSIGN_OR_RETURN(report_.measured, backend_.MeasureMemory());
  ASYMSERVE_ASSIGN_OR_RETURN(report_.room, backend_.Room());
  report_.process_resident = ProcessResidentBytes();
  next_ = now + kInterval;
  return report_;
}

void MemoryWatch::Trim() {
  {
    std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    if (now < next_trim_) return;
    next_trim_ = now + kInterval;
  }
  const absl::StatusOr<MemoryReport> report = Report();
  if (!report.ok() || report->runtime_resident() <= report->runtime_bound) return;
  TrimHeap();
  std::lock_guard lock(mutex_);
  next_ = {};
}

}  // namespace asymserve
