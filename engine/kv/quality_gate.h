#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

#include "engine/kv/profile.h"

// Whether a tier of a profile may be served, by its measured losses. Pure.

namespace asymserve {

/// What a scheme may lose at most, in nats per token; 0: no limit.
struct KvQualityLimits {
  double max_mean_kl = 0;
  double max_copy_loss = 0;

  bool unlimited() const { return max_mean_kl == 0 && max_copy_loss == 0; }
  friend bool operator==(const KvQualityLimits&, const KvQualityLimits&) = default;
};

/// A scheme with a higher copy loss is unfit for long-range reading: what old pages say is mostly
/// lost. Nats per token, absolute; exact itself has about 0.2 on the default model.
inline constexpr double kLongRangeCopyLoss = 0.75;

/// The highest of each loss, over all texts.
struct KvWorstLoss {
  double mean_kl = 0;
  double copy_loss = 0;

  friend bool operator==(const KvWorstLoss&, const KvWorstLoss&) = default;
};

/// Empty when nothing was measured.
std::optional<KvWorstLoss> WorstLoss(std::span<const KvLoss> losses);

/// OK when every measured loss of the tier is within the limits, and there is one unless there is
/// no limit. Otherwise FailedPrecondition: which loss is over which limit, which options to change,
/// and on further lines TierTable. NotFound when the profile, which must be valid, has no such
/// tier.
absl::Status CheckTierQuality(const KvProfile& profile, std::string_view tier,
                              const KvQualityLimits& limits);

/// The same for what a self-check measured of a scheme, of whatever kind; `profile` may be null.
absl::Status CheckMeasuredKl(std::string_view scheme, double mean_kl, const KvQualityLimits& limits,
                             const KvProfile* profile);

/// A line of titles, a line per tier (name, sealed bits per element, worst losses, whether it is
/// within the limits), a line of the limits. No newline at its end.
std::string TierTable(const KvProfile& profile, const KvQualityLimits& limits);

}  // namespace asymserve
