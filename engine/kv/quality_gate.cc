#include "engine/kv/quality_gate.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

#include "engine/base/status.h"
#include "engine/kv/layout.h"

namespace asymserve {
namespace {

bool IsOver(double loss, double limit) {
  return limit > 0 && loss > limit;
}

/// "mean KL 0.07 on 'wikitext-2' is over kv.quality.max_mean_kl = 0.05", for each loss that is.
std::vector<std::string> LossesOver(const KvProfileTier& tier, const KvQualityLimits& limits) {
  std::vector<std::string> over;
  const auto add = [&](const char* name, double loss, const std::string& text, const char* option,
                       double limit) {
    if (!IsOver(loss, limit)) return;
    over.push_back(
        absl::StrCat(name, " ", loss, " on '", text, "' is over ", option, " = ", limit));
  };
  for (const KvLoss& loss : tier.losses) {
    add("mean KL", loss.mean_kl, loss.text, "kv.quality.max_mean_kl", limits.max_mean_kl);
    add("copy loss", loss.copy_loss, loss.text, "kv.quality.max_copy_loss", limits.max_copy_loss);
  }
  return over;
}

bool Passes(const KvProfileTier& tier, const KvQualityLimits& limits) {
  if (tier.losses.empty()) return limits.unlimited();
  return LossesOver(tier, limits).empty();
}

std::string Number(double value) {
  return absl::StrFormat("%.4f", value);
}

std::string LimitText(double limit) {
  return limit > 0 ? Number(limit) : "none";
}

}  // namespace

std::optional<KvWorstLoss> WorstLoss(std::span<const KvLoss> losses) {
  if (losses.empty()) return std::nullopt;
  KvWorstLoss worst{losses.front().mean_kl, losses.front().copy_loss};
  for (const KvLoss& loss : losses) {
    worst.mean_kl = std::max(worst.mean_kl, loss.mean_kl);
    worst.copy_loss = std::max(worst.copy_loss, loss.copy_loss);
  }
  return worst;
}

absl::Status CheckTierQuality(const KvProfile& profile, std::string_view name,
                              const KvQualityLimits& limits) {
  const auto tier =
      std::find_if(profile.tiers.begin(), profile.tiers.end(),
                   [name](const KvProfileTier& candidate) { return candidate.name == name; });
  if (tier == profile.tiers.end()) return TierScheme(profile, name).status();
  if (Passes(*tier, limits)) return absl::OkStatus();
  const std::string why = tier->losses.empty() ? "the profile has no measured losses of it"
                                               : absl::StrJoin(LossesOver(*tier, limits), "; ");
  return absl::FailedPreconditionError(
      absl::StrCat("kv.quality: tier '", tier->name, "' is refused: ", why,
                   ". Name another one in kv.scheme, or change kv.quality.max_mean_kl and "
                   "kv.quality.max_copy_loss (0: no limit). The tiers of the profile:\n",
                   TierTable(profile, limits)));
}

absl::Status CheckMeasuredKl(std::string_view scheme, double mean_kl, const KvQualityLimits& limits,
                             const KvProfile* profile) {
  if (!IsOver(mean_kl, limits.max_mean_kl)) return absl::OkStatus();
  std::string message = absl::StrCat(
      "kv.quality.self_check: KV scheme '", std::string(scheme), "' is refused: mean KL ", mean_kl,
      " on the built-in text is over kv.quality.max_mean_kl = ", limits.max_mean_kl,
      ". Name another one in kv.scheme, or change kv.quality.max_mean_kl (0: no limit).");
  if (profile != nullptr) {
    absl::StrAppend(&message, " The tiers of the profile:\n", TierTable(*profile, limits));
  }
  return absl::FailedPreconditionError(message);
}

std::string TierTable(const KvProfile& profile, const KvQualityLimits& limits) {
  int width = 8;
  for (const KvProfileTier& tier : profile.tiers) {
    width = std::max(width, static_cast<int>(tier.name.size()));
  }
  std::string table;
  const auto row = [&](const std::string& name, const std::string& bits, const std::string& kl,
                       const std::string& copy, const char* passes) {
    absl::StrAppend(
        &table, table.empty() ? "" : "\n",
        absl::StrFormat("%-*s  %11s  %13s  %15s  %s", width, name, bits, kl, copy, passes));
  };
  row("tier", "sealed bits", "worst mean KL", "worst copy loss", "passes");
  for (const KvProfileTier& tier : profile.tiers) {
    const absl::StatusOr<KvScheme> scheme = TierScheme(profile, tier.name);
    const double bits = scheme.ok() ? KvLayout(profile.shape, *scheme).sealed_bits() : 0;
    const std::optional<KvWorstLoss> worst = WorstLoss(tier.losses);
    row(tier.name, absl::StrFormat("%.2f", bits),
        worst.has_value() ? Number(worst->mean_kl) : "not measured",
        worst.has_value() ? Number(worst->copy_loss) : "not measured",
        Passes(tier, limits) ? "yes" : "no");
  }
  row("limit", "", LimitText(limits.max_mean_kl), LimitText(limits.max_copy_loss), "");
  while (table.back() == ' ') table.pop_back();
  return table;
}

}  // namespace asymserve
