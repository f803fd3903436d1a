#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>

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
};

/// A table for people, the rows of each text together, in the order of `rows`.
std::string QualityTable(std::span<const QualityRow> rows);

/// {"rows":[{"scheme","text","tokens","from","kl_mean","kl_p99","kl_p999","top1","ppl","ppl_ratio",
/// "bits_sealed","bits_effective":{"1024":...},"copy_nll","copy_nll_exact"}]}; the copy fields are
/// null where the copy test was not asked for. KL and NLL in nats, top1 a fraction.
std::string QualityJson(std::span<const QualityRow> rows);

}  // namespace asymserve
