#pragma once

#include <cstdint>
#include <string>

#include "engine/text/tokenizer_spec.h"

namespace asymserve::testing {

/// Ids of the toy tokenizer: 0 .. 255 are the bytes by value, then the merged tokens, then these.
inline constexpr int32_t kToyMerges = 12;
inline constexpr int32_t kToyEndOfText = 256 + kToyMerges;
inline constexpr int32_t kToyTurnStart = kToyEndOfText + 1;  // <|im_start|>
inline constexpr int32_t kToyTurnEnd = kToyEndOfText + 2;    // <|im_end|>, the eos
inline constexpr int32_t kToyLeastVocabulary = kToyEndOfText + 3;

/// A byte-level BPE tokenizer with GPT-2's pre-tokenizer, ChatML tokens and template, filled up to
/// `vocabulary` >= kToyLeastVocabulary with unused tokens.
TokenizerSpec ToyTokenizerSpec(int32_t vocabulary);

/// The same as a Hugging Face tokenizer.json and tokenizer_config.json, without the filling.
std::string ToyTokenizerJson();
std::string ToyTokenizerConfigJson();

}  // namespace asymserve::testing
