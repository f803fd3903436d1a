#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "engine/base/sha256.h"
#include "engine/kv/plane_code.h"
#include "engine/kv/scheme.h"

namespace asymserve {

/// What a tier loses on one text, measured on tokens that calibration and search did not use.
struct KvLoss {
  std::string text;      // "wikitext-2", 1 to 256 bytes
  int64_t tokens = 0;    // judged
  double mean_kl = 0;    // KL(exact || tier) in nats per token
  double copy_loss = 0;  // negative log-likelihood in nats per token of a passage read again

  friend bool operator==(const KvLoss&, const KvLoss&) = default;
};

/// A named way to spend bits on a model.
struct KvProfileTier {
  std::string name;  // 1 to 64 of a-z 0-9 . _ -, no name that NamedKvScheme knows
  int32_t sink_pages = 0;
  int32_t recent_pages = 0;
  int32_t fresh_pages = 0;
  std::vector<KvItem> items;  // [L][2][G]: kPlanes, kInt8 or kFitted
  std::vector<KvLoss> losses;

  friend bool operator==(const KvProfileTier&, const KvProfileTier&) = default;
};

/// The learned codes of a model and the tiers that use them: a plain value, written by `asymserve
/// calibrate`. Tables are fp16 values.
struct KvProfile {
  KvShape shape;
  Sha256Digest model_digest =
      {};  // of the model the codes were trained on (quality/model_digest.h)
  int32_t frame_tokens = 512;
  PlaneCodes codes;  // no planes where no tier uses any
  std::vector<KvProfileTier> tiers;
  std::string description;  // how it was made, for people; up to 64 KiB
};

/// InvalidArgument when anything in a profile is out of range, does not fit the rest, or is NaN:
/// "profile: item 7 (keys of layer 1, head 1): ...".
absl::Status CheckProfile(const KvProfile& profile);

/// The scheme that a tier names: int8 near pages, and codes from the profile. NotFound lists the
/// tiers. The profile must be valid.
absl::StatusOr<KvScheme> TierScheme(const KvProfile& profile, std::string_view name);

/// The scheme of that name: a tier of the profile, which may be null, or one of NamedKvScheme.
/// NotFound lists what there is.
absl::StatusOr<KvScheme> ResolveKvScheme(std::string_view name, const KvShape& shape,
                                         const KvProfile* profile);

/// The profile as bytes, all numbers little-endian:
///
///   "ASYMKVPF", u32 version = 1, u64 bytes of the whole file
///   u32 layers, kv_heads, head_size D, frame_tokens; u8 model_digest [32]; text description
///   per item [L][2][G]: u32 planes; unless 0: fp16 encode [D][D], fp16 mean [D],
///                       u8 subvector [planes], fp16 codebooks [planes][4][16]
///   u32 tiers, each: text name; i32 sink, recent, fresh pages;
///                    per item: u8 codec, bits, base planes, fresh planes;
///                    u32 losses, each: text, i64 tokens, f64 mean_kl, f64 copy_loss
///   u8 SHA-256 [32] of all before it
///
/// text = u32 bytes, then they. PlaneCode::decode is not stored: it is computed at load. The same
/// profile gives the same bytes. InvalidArgument as CheckProfile, and for a table value that fp16
/// cannot hold exactly.
absl::StatusOr<std::string> SerializeProfile(const KvProfile& profile);
/// The inverse, for bytes from anywhere: what it returns is valid (CheckProfile).
absl::StatusOr<KvProfile> ParseProfile(std::span<const std::byte> bytes);

/// Errors name the path. Writing replaces the file as a whole or not at all.
absl::StatusOr<KvProfile> ReadProfile(const std::string& path);
absl::Status WriteProfile(const KvProfile& profile, const std::string& path);

}  // namespace asymserve
