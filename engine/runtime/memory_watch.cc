#include "engine/runtime/memory_watch.h"

#include "engine/base/kernel_memory.h"
#include "engine/base/status.h"

namespace asymserve {

MemoryWatch::MemoryWatch(const Backend& backend, const MemoryPlan& plan)
    : backend_(backend), ledger_(plan.ledger) {
  report_.planned[MemoryClass::kWeights] = ledger_[LedgerRow::kWeights];
  report_.planned[MemoryClass::kTables] = ledger_[LedgerRow::kTables];
  report_.planned[MemoryClass::kWorkspace] = ledger_[LedgerRow::kWorkspace];
  report_.planned[MemoryClass::kKv] = ledger_.kv_bytes();
  report_.runtime_bound = ledger_[LedgerRow::kRuntime];
}

absl::StatusOr<MemoryReport> MemoryWatch::Report() {
  constexpr std::chrono::seconds kInterval(5);
  std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  if (now < next_) return report_;
  ASYMSERVE_ASSIGN_OR_RETURN(report_.measured, backend_.MeasureMemory());
  report_.process_resident = ProcessResidentBytes();
  next_ = now + kInterval;
  return report_;
}

}  // namespace asymserve
