#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "engine/kv/profile.h"
#include "engine/model/weight_file.h"

namespace asymserve {

/// The profile that was asked for, else that beside the model; empty: none was, and there is none.
std::string FindModelProfile(const std::string& asked, const std::string& model_path);

/// Reads a profile and checks that it was made for this model. FailedPrecondition names both when
/// it was not.
absl::StatusOr<KvProfile> ReadModelProfile(const std::string& path, const WeightFile& file);

/// The scheme that kv.scheme stands for: auto is the tier `balanced` of a profile, else exact.
std::string KvSchemeName(const std::string& asked, bool has_profile);

}  // namespace asymserve
