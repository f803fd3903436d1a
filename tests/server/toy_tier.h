#pragma once

#include <string>
#include <utility>
#include <vector>

#include "engine/base/check.h"
#include "engine/kv/profile.h"
#include "engine/model/weight_file.h"
#include "engine/quality/model_digest.h"
#include "tests/engine/kv/toy_profile.h"

namespace asymserve::testing {

/// Writes a profile beside a model whose heads have size 8, where a server looks for it. Its tier
/// `balanced` gives every sealed page a refinement first. Aborts when that cannot be done.
inline void WriteToyTier(const std::string& model_path) {
  const auto file = OpenWeightFile(model_path);
  ASYMSERVE_CHECK(file.ok());
  const ModelConfig& config = (*file)->config();
  KvProfile profile;
  profile.shape = {config.layers, config.attention.kv_heads, config.attention.head_size};
  auto digest = ModelDigest(**file);
  ASYMSERVE_CHECK(digest.ok());
  profile.model_digest = *std::move(digest);
  const auto items = static_cast<size_t>(2 * profile.shape.layers * profile.shape.kv_heads);
  profile.codes.assign(items, ToyCode(8, 2.0f));
  const KvItem item = {.codec = KvCodec::kPlanes, .base_planes = 2, .fresh_planes = 8};
  profile.tiers = {{.name = "balanced",
                    .sink_pages = 1,
                    .recent_pages = 1,
                    .fresh_pages = 2,
                    .items = std::vector<KvItem>(items, item),
                    .losses = {}}};
  ASYMSERVE_CHECK(WriteProfile(profile, model_path + ".asymkv").ok());
}

}  // namespace asymserve::testing
