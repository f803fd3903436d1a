#pragma once

#include "absl/status/statusor.h"

#include "engine/base/sha256.h"
#include "engine/model/weight_file.h"

namespace asymserve {

/// What binds a profile to a model: SHA-256 over its shapes, its rotary embedding, and the bytes of
/// its attention and norm tensors. The same file gives the same digest, another quantization of
/// the same model gives another. Reads those tensors: about 0.1 s for SmolLM2-135M.
absl::StatusOr<Sha256Digest> ModelDigest(const WeightFile& file);

}  // namespace asymserve
