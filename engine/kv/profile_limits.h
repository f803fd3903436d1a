#pragma once

#include <cstdint>

#include "absl/status/status.h"

#include "engine/kv/scheme.h"

// What a valid profile may hold at most, shared by its checker and its parser: more than any model
// needs, little enough that a hostile file cannot ask for much memory.

namespace asymserve {

inline constexpr int32_t kMaxProfileLayers = 512;
inline constexpr int32_t kMaxProfileHeads = 128;
inline constexpr uint32_t kMaxPlanes = 254;  // KvItem counts in bytes
inline constexpr uint32_t kMaxTiers = 32;
inline constexpr uint32_t kMaxLosses = 64;
inline constexpr int32_t kMaxTierPages = 1 << 16;
inline constexpr uint32_t kMaxDescriptionBytes = 64 << 10;
inline constexpr uint32_t kMaxTierNameBytes = 64;
inline constexpr uint32_t kMaxLossTextBytes = 256;

/// InvalidArgument when the sizes cannot be those of a model.
absl::Status CheckProfileShape(const KvShape& shape);
/// InvalidArgument unless a code may have that many planes.
absl::Status CheckPlaneCount(uint64_t planes);

}  // namespace asymserve
