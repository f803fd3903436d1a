#pragma once

#include "absl/status/statusor.h"

#include "engine/model/gguf.h"
#include "engine/text/tokenizer_spec.h"

namespace asymserve {

/// The tokenizer that a GGUF file carries in its tokenizer.* keys. Token ids are in range and the
/// per-token arrays have one length; errors name the key. Tokenizer::Create checks the rest.
absl::StatusOr<TokenizerSpec> TokenizerSpecFromGguf(const Gguf& gguf);

}  // namespace asymserve
