#pragma once

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

#include "engine/backend/backend.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

namespace asymserve {

/// Tokens of the self-check, and the first one that counts: before it a sequence has few pages that
/// are neither near nor fresh.
inline constexpr int32_t kSelfCheckTokens = 1536;
inline constexpr int32_t kSelfCheckFrom = 1024;
/// Tokens and logit rows of one step that the model must be able to take.
inline constexpr int32_t kSelfCheckRows = 64;

/// English prose and dialogue with names and numbers that come back, written for this purpose: more
/// than kSelfCheckTokens tokens for any vocabulary of pieces of words.
std::string_view SelfCheckText();

/// Mean KL(exact || scheme) in nats per token of `setup.scheme` on SelfCheckText, by
/// pseudo-decoding (PseudoDecoder) with both. `model` is bound to `backend`, whose KV cache must be
/// initialized again afterwards. The exact logits, 511 rows of V floats, stay in memory meanwhile.
/// FailedPrecondition when the context is too short or the text has too few tokens.
absl::StatusOr<double> SelfCheckKl(Model& model, Backend& backend, const KvSetup& setup,
                                   const Tokenizer& tokenizer);

}  // namespace asymserve
