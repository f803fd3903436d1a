#include "engine/kv/profile.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "engine/base/status.h"
#include "engine/kv/codec.h"
#include "engine/kv/item_name.h"
#include "engine/kv/profile_limits.h"

namespace asymserve {
namespace {

absl::Status Bad(const std::string& why) {
  return absl::InvalidArgumentError(absl::StrCat("profile: ", why));
}

absl::Status CheckFinite(const std::vector<float>& values, size_t expected, const char* what) {
  if (values.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, " has ", values.size(), " values, expected ", expected));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::InvalidArgumentError(absl::StrCat("value ", i, " of ", what, " is ",
                                                     std::isnan(values[i]) ? "NaN" : "infinite"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckCode(const PlaneCode& code, int32_t head_size) {
  if (code.planes() == 0) return absl::OkStatus();
  ASYMSERVE_RETURN_IF_ERROR(CheckPlaneCount(code.subvector.size()));
  if (code.head_size != head_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("head size ", code.head_size, ", the profile's is ", head_size));
  }
  for (const uint8_t subvector : code.subvector) {
    if (subvector >= head_size / 4) {
      return absl::InvalidArgumentError(
          absl::StrCat("a plane of subvector ", int{subvector}, ", there are ", head_size / 4));
    }
  }
  const auto size = static_cast<size_t>(head_size);
  ASYMSERVE_RETURN_IF_ERROR(CheckFinite(code.encode, size * size, "encode"));
  ASYMSERVE_RETURN_IF_ERROR(CheckFinite(code.decode, size * size, "decode"));
  ASYMSERVE_RETURN_IF_ERROR(CheckFinite(code.mean, size, "mean"));
  return CheckFinite(code.codebooks, size_t{64} * code.subvector.size(), "codebooks");
}

bool IsTierName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxTierNameBytes &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
                  c == '-';
         });
}

absl::Status CheckLoss(const KvLoss& loss) {
  if (loss.text.empty() || loss.text.size() > kMaxLossTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a loss whose text has a name of ",
                                                   loss.text.size(), " bytes; allowed are 1 to ",
                                                   kMaxLossTextBytes));
  }
  if (loss.tokens < 1 || !std::isfinite(loss.mean_kl) || loss.mean_kl < 0 ||
      !std::isfinite(loss.copy_loss)) {
    return absl::InvalidArgumentError(absl::StrCat("a loss of KL ", loss.mean_kl, " and copy ",
                                                   loss.copy_loss, " over ", loss.tokens,
                                                   " tokens"));
  }
  return absl::OkStatus();
}

KvScheme SchemeOf(const KvProfile& profile, const KvProfileTier& tier) {
  KvScheme scheme;
  scheme.name = tier.name;
  scheme.near = KvCodec::kInt8;
  scheme.sink_pages = tier.sink_pages;
  scheme.key_window = {.recent_pages = tier.recent_pages, .block_pages = 1};
  scheme.value_window = scheme.key_window;
  scheme.fresh_pages = tier.fresh_pages;
  scheme.frame_tokens = profile.frame_tokens;
  scheme.items = tier.items;
  return scheme;
}

std::string TierNames(const KvProfile& profile) {
  return absl::StrJoin(profile.tiers, ", ",
                       [](std::string* out, const KvProfileTier& tier) { out->append(tier.name); });
}

absl::Status CheckTierItem(const KvItem& item, const PlaneCode& code) {
  if (item.codec != KvCodec::kPlanes && item.codec != KvCodec::kInt8 &&
      item.codec != KvCodec::kFitted) {
    return absl::InvalidArgumentError(absl::StrCat("codec ", static_cast<int>(item.codec),
                                                   "; a tier uses planes, int8 and fitted levels"));
  }
  if (item.codec == KvCodec::kPlanes && item.fresh_planes > code.planes()) {
    return absl::InvalidArgumentError(
        absl::StrCat(int{item.fresh_planes}, " planes, its code has ", code.planes()));
  }
  return absl::OkStatus();
}

absl::Status CheckTier(const KvProfile& profile, size_t index) {
  const KvProfileTier& tier = profile.tiers[index];
  if (!IsTierName(tier.name)) {
    return Bad(absl::StrCat("the name of tier ", index, " is not 1 to ", kMaxTierNameBytes,
                            " of a-z 0-9 . _ -"));
  }
  const auto bad = [&](std::string_view why) {
    return Bad(absl::StrCat("tier '", tier.name, "': ", std::string(why)));
  };
  const auto earlier = profile.tiers.begin() + static_cast<ptrdiff_t>(index);
  if (std::any_of(profile.tiers.begin(), earlier,
                  [&](const KvProfileTier& other) { return other.name == tier.name; })) {
    return bad("appears twice");
  }
  if (NamedKvScheme(tier.name, profile.shape).ok()) return bad("is the name of a built-in scheme");
  for (const int32_t pages : {tier.sink_pages, tier.recent_pages, tier.fresh_pages}) {
    if (pages < 0 || pages > kMaxTierPages) {
      return bad(absl::StrCat(pages, " pages; allowed are 0 to ", kMaxTierPages));
    }
  }
  if (tier.items.size() != profile.codes.size()) {
    return bad(absl::StrCat(tier.items.size(), " items, the model has ", profile.codes.size()));
  }
  for (size_t i = 0; i < tier.items.size(); ++i) {
    const absl::Status status = CheckTierItem(tier.items[i], profile.codes[i]);
    if (!status.ok()) {
      return bad(absl::StrCat(KvItemName(profile.shape, i), ": ", std::string(status.message())));
    }
  }
  const absl::Status scheme = CheckKvScheme(SchemeOf(profile, tier), profile.shape);
  if (!scheme.ok()) return Annotate(scheme, "profile");
  if (tier.losses.size() > kMaxLosses) {
    return bad(absl::StrCat(tier.losses.size(), " losses, at most ", kMaxLosses));
  }
  for (const KvLoss& loss : tier.losses) {
    const absl::Status status = CheckLoss(loss);
    if (!status.ok()) return bad(std::string(status.message()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckProfileShape(const KvShape& shape) {
  const auto in_range = [](int32_t value, int32_t most) { return value >= 1 && value <= most; };
  if (!in_range(shape.layers, kMaxProfileLayers) || !in_range(shape.kv_heads, kMaxProfileHeads)) {
    return Bad(absl::StrCat(shape.layers, " layers of ", shape.kv_heads,
                            " KV heads; allowed are 1 to ", kMaxProfileLayers, " of 1 to ",
                            kMaxProfileHeads));
  }
  if (!in_range(shape.head_size, kMaxKvHeadSize) || shape.head_size % 8 != 0) {
    return Bad(absl::StrCat("head size ", shape.head_size, "; allowed are multiples of 8 up to ",
                            kMaxKvHeadSize));
  }
  return absl::OkStatus();
}

absl::Status CheckPlaneCount(uint64_t planes) {
  if (planes % 2 != 0 || planes > kMaxPlanes) {
    return absl::InvalidArgumentError(
        absl::StrCat(planes, " planes; must be even and at most ", kMaxPlanes));
  }
  return absl::OkStatus();
}

absl::Status CheckProfile(const KvProfile& profile) {
  ASYMSERVE_RETURN_IF_ERROR(CheckProfileShape(profile.shape));
  if (profile.description.size() > kMaxDescriptionBytes) {
    return Bad(absl::StrCat("a description of ", profile.description.size(), " bytes, at most ",
                            kMaxDescriptionBytes));
  }
  if (profile.codes.size() != KvItemCount(profile.shape)) {
    return Bad(absl::StrCat("codes of ", profile.codes.size(), " items, the model has ",
                            KvItemCount(profile.shape)));
  }
  for (size_t i = 0; i < profile.codes.size(); ++i) {
    const absl::Status status = CheckCode(profile.codes[i], profile.shape.head_size);
    if (!status.ok()) {
      return Bad(absl::StrCat(KvItemName(profile.shape, i), ": ", std::string(status.message())));
    }
  }
  if (profile.tiers.empty() || profile.tiers.size() > kMaxTiers) {
    return Bad(absl::StrCat(profile.tiers.size(), " tiers; allowed are 1 to ", kMaxTiers));
  }
  for (size_t i = 0; i < profile.tiers.size(); ++i) {
    ASYMSERVE_RETURN_IF_ERROR(CheckTier(profile, i));
  }
  return absl::OkStatus();
}

absl::StatusOr<KvScheme> TierScheme(const KvProfile& profile, std::string_view name) {
  for (const KvProfileTier& tier : profile.tiers) {
    if (tier.name == name) return SchemeOf(profile, tier);
  }
  return absl::NotFoundError(absl::StrCat("the profile has no tier '", std::string(name),
                                          "'; it has ", TierNames(profile)));
}

absl::StatusOr<KvScheme> ResolveKvScheme(std::string_view name, const KvShape& shape,
                                         const KvProfile* profile) {
  if (profile != nullptr) {
    for (const KvProfileTier& tier : profile->tiers) {
      if (tier.name == name) return SchemeOf(*profile, tier);
    }
  }
  absl::StatusOr<KvScheme> named = NamedKvScheme(name, shape);
  if (!absl::IsNotFound(named.status())) return named;
  return absl::NotFoundError(absl::StrCat(std::string(named.status().message()),
                                          profile == nullptr
                                              ? ", but no profile was found"
                                              : absl::StrCat(", which are ", TierNames(*profile))));
}

}  // namespace asymserve
