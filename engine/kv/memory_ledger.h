#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace asymserve {

/// What the memory of a process is planned to be used for.
enum class LedgerRow : uint8_t {
  kWeights,
  kWorkspace,    // activations and scratch
  kTables,       // codebooks, the rotary table, norms
  kSealedPages,  // complete pages of running sequences outside sink and window
  kOpenPages,    // near pages of running sequences beyond the sink
  kSinkPages,
  kSparePages,  // of the arena, and not needed by the planned sequences
  kRuntime,     // the rest of the process: a bound
  kMargin,      // left alone on purpose
  kUnused,      // no sequence could ever use it
};
inline constexpr size_t kLedgerRows = 10;

/// "sealed_pages": as JSON keys and log fields.
const char* LedgerRowName(LedgerRow row);

/// The rows sum to the budget.
struct MemoryLedger {
  int64_t budget_bytes = 0;
  std::array<int64_t, kLedgerRows> bytes = {};

  int64_t& operator[](LedgerRow row) { return bytes[static_cast<size_t>(row)]; }
  int64_t operator[](LedgerRow row) const { return bytes[static_cast<size_t>(row)]; }
  int64_t total() const;
  /// The arena: sealed, open, sink and spare pages.
  int64_t kv_bytes() const;
};

/// "1.25 GiB": three digits, for people.
std::string ReadableBytes(int64_t bytes);

}  // namespace asymserve
