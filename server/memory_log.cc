#include "server/memory_log.h"

#include "engine/base/log.h"

namespace asymserve {

void LogMemory(MemoryWatch& memory) {
  const MemoryLedger& ledger = memory.ledger();
  Log(LogLevel::kInfo, "memory_plan",
      {{"budget", ledger.budget_bytes},
       {"of", memory.host_bytes() > 0 ? "device" : "process"},
       {"weights", ledger[LedgerRow::kWeights]},
       {"workspace", ledger[LedgerRow::kWorkspace]},
       {"tables", ledger[LedgerRow::kTables]},
       {"sealed_pages", ledger[LedgerRow::kSealedPages]},
       {"open_pages", ledger[LedgerRow::kOpenPages]},
       {"sink_pages", ledger[LedgerRow::kSinkPages]},
       {"spare_pages", ledger[LedgerRow::kSparePages]},
       {"runtime", ledger[LedgerRow::kRuntime]},
       {"margin", ledger[LedgerRow::kMargin]},
       {"unused", ledger[LedgerRow::kUnused]}});
  const absl::StatusOr<MemoryReport> report = memory.Report();
  if (!report.ok()) {
    Log(LogLevel::kWarn, "memory", {{"error", std::string(report.status().message())}});
    return;
  }
  const MemoryBytes& mapped = report->measured.mapped;
  Log(LogLevel::kInfo, "memory",
      {{"weights", mapped[MemoryClass::kWeights]},
       {"workspace", mapped[MemoryClass::kWorkspace]},
       {"tables", mapped[MemoryClass::kTables]},
       {"kv", mapped[MemoryClass::kKv]},
       {"resident", report->process_resident},
       {"runtime", report->runtime_resident()}});
}

}  // namespace asymserve
