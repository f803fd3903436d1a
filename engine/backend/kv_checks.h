#pragma once

#include <cstdint>
#include <span>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/kv/record_pool.h"

// As operation_checks.h, for the KV cache.

namespace asymserve {

/// The arena that calls are held against. Borrowed; `scheme` null: KvInit was not called.
struct KvArenaShape {
  const KvShape* shape = nullptr;
  const KvScheme* scheme = nullptr;
  const ArenaCut* cut = nullptr;
};

/// Whether some item is kPlanes.
bool HasPlanes(const KvScheme& scheme);
/// InvalidArgument unless every kPlanes item of the setup has a code that fits it.
absl::Status CheckPlaneCodes(const KvSetup& setup);

/// InternalError unless the arena can hold every page of the step and `tokens` rows fit it.
absl::Status CheckKvStep(const KvStep& step, int32_t layer, int64_t tokens,
                         const KvArenaShape& arena);
/// What KvWrite needs beyond that: rows with keys and values, pages that are not sealed.
absl::Status CheckKvWrite(const KvStep& step, TensorView qkv, const KvArenaShape& arena);
/// `positions`: of the rotary table, 0 without one.
absl::Status CheckKvSeal(std::span<const KvSealOp> pages, int64_t positions,
                         const KvArenaShape& arena);
/// What Attention needs beyond CheckKvStep.
absl::Status CheckAttention(const AttentionShape& shape, TensorView out, TensorView qkv,
                            const KvArenaShape& arena);

}  // namespace asymserve
