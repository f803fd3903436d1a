#pragma once

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

#include "engine/kv/codec.h"
#include "engine/quality/pseudo_decode.h"

namespace asymserve {

inline constexpr int32_t kCopySkip = kKvPageTokens;  // of the second reading: it has not caught on

/// Negative log-likelihood, in nats per token, of the second of two readings of a passage, from its
/// token kCopySkip on: only old pages can help with it. The passage has kCopySkip + 2 tokens or
/// more. InternalError where logits are not finite.
absl::StatusOr<double> CopyLoss(PseudoDecoder& decoder, std::span<const int32_t> passage,
                                const PseudoDecoder::ProgressSink& progress);

}  // namespace asymserve
