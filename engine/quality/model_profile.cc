#include "engine/quality/model_profile.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

#include "engine/base/status.h"
#include "engine/quality/model_digest.h"

namespace asymserve {

std::string FindModelProfile(const std::string& asked, const std::string& model_path) {
  if (!asked.empty()) return asked;
  const std::string beside = model_path + ".asymkv";
  std::error_code ignored;
  return std::filesystem::exists(beside, ignored) ? beside : "";
}

absl::StatusOr<KvProfile> ReadModelProfile(const std::string& path, const WeightFile& file) {
  ASYMSERVE_ASSIGN_OR_RETURN(KvProfile profile, ReadProfile(path));
  const ModelConfig& config = file.config();
  const KvShape shape{config.layers, config.attention.kv_heads, config.attention.head_size};
  if (profile.shape != shape) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": made for a model of ", profile.shape.layers, " layers with ",
        profile.shape.kv_heads, " KV heads of ", profile.shape.head_size, "; this one has ",
        shape.layers, " with ", shape.kv_heads, " of ", shape.head_size));
  }
  ASYMSERVE_ASSIGN_OR_RETURN(const Sha256Digest digest, ModelDigest(file));
  if (profile.model_digest != digest) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": made for other weights of this shape; run asymserve calibrate"));
  }
  return profile;
}

std::string KvSchemeName(const std::string& asked, bool has_profile) {
  if (asked != "auto") return asked;
  return has_profile ? "balanced" : "exact";
}

}  // namespace asymserve
