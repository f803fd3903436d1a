#include "engine/quality/copy_loss.h"

#include <cmath>
#include <vector>

#include "engine/base/status.h"
#include "engine/quality/quality_metrics.h"

namespace asymserve {

absl::StatusOr<double> CopyLoss(PseudoDecoder& decoder, std::span<const int32_t> passage,
                                const PseudoDecoder::ProgressSink& progress) {
  std::vector<int32_t> twice(passage.begin(), passage.end());
  twice.insert(twice.end(), passage.begin(), passage.end());
  const auto from = static_cast<int32_t>(passage.size()) + kCopySkip;
  double sum = 0;
  const auto add = [&](int32_t position, std::span<const float> logits) {
    sum += NegativeLogLikelihood(logits, twice[static_cast<size_t>(position) + 1]);
  };
  ASYMSERVE_RETURN_IF_ERROR(decoder.Run(twice, from, add, progress));
  if (!std::isfinite(sum)) return absl::InternalError("copy test: logits are not finite");
  return sum / static_cast<double>(twice.size() - 1 - static_cast<size_t>(from));
}

}  // namespace asymserve
