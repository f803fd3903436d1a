#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

#include "engine/quality/free_running.h"
#include "engine/quality/quality_metrics.h"

namespace asymserve {

/// What one scheme costs on one text.
struct QualityRow {
  std::string scheme;
  std::string text;    // as named on the command line
  int32_t tokens = 0;  // of the text
  int32_t from = 0;    // figures count positions from here on
  QualityFigures figures;
  double bits_sealed = 0;                    // bits per element, KvLayout::sealed_bits
  std::map<int64_t, double> bits_effective;  // tokens -> bits per element, EffectiveBits
  std::optional<double> copy_nll;            // nats per token of the second reading
  std::optional<double> copy_nll_exact;
  std::optional<FreeRunning> free_running;
};

/// Tables for people: the rows of each text together, in the order of `rows`; what was generated in
/// a table of its own.
std::string QualityTable(std::span<const QualityRow> rows);

}  // namespace asymserve
