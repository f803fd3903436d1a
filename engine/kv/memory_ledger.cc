#include "engine/kv/memory_ledger.h"

#include <cstdio>
#include <numeric>

namespace asymserve {

const char* LedgerRowName(LedgerRow row) {
  switch (row) {
    case LedgerRow::kWeights:
      return "weights";
    case LedgerRow::kWorkspace:
      return "workspace";
    case LedgerRow::kTables:
      return "tables";
    case LedgerRow::kSealedPages:
      return "sealed_pages";
    case LedgerRow::kOpenPages:
      return "open_pages";
    case LedgerRow::kSinkPages:
      return "sink_pages";
    case LedgerRow::kSparePages:
      return "spare_pages";
    case LedgerRow::kRuntime:
      return "runtime";
    case LedgerRow::kMargin:
      return "margin";
    case LedgerRow::kUnused:
      return "unused";
  }
  return "?";
}

int64_t MemoryLedger::total() const {
  return std::accumulate(bytes.begin(), bytes.end(), int64_t{0});
}

int64_t MemoryLedger::kv_bytes() const {
  const MemoryLedger& ledger = *this;
  return ledger[LedgerRow::kSealedPages] + ledger[LedgerRow::kOpenPages] +
         ledger[LedgerRow::kSinkPages] + ledger[LedgerRow::kSparePages];
}

std::string ReadableBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < std::size(kUnits)) {
    value /= 1024;
    ++unit;
  }
  const int digits = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  char text[32];
  std::snprintf(text, sizeof(text), "%.*f %s", digits, value, kUnits[unit]);
  return text;
}

}  // namespace asymserve
