#pragma once

#include <string_view>

#include "absl/status/statusor.h"

#include "engine/text/tokenizer_spec.h"

namespace asymserve {

/// Reads a Hugging Face tokenizer.json, and with it the tokenizer_config.json (may be empty) that
/// says more about the special tokens. Taken are byte-level BPE with one of the pre-tokenizers of
/// PreTokenizer, and BPE with byte fallback in SentencePiece's manner (Llama-2, Mistral).
/// InvalidArgument names the field that is broken, or the construct that is not among these.
/// Tokenizer::Create checks the rest. Memory is proportional to the input.
absl::StatusOr<TokenizerSpec> ParseTokenizerJson(std::string_view json,
                                                 std::string_view tokenizer_config_json);

}  // namespace asymserve
