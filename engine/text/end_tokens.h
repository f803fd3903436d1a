#pragma once

#include "engine/text/tokenizer_spec.h"

namespace asymserve {

/// Adds to `spec.end_ids` the control tokens that end a turn in the chat formats of common models
/// ("<|im_end|>", "<|eot_id|>"), for files that name only one end token.
void AddEndOfTurnTokens(TokenizerSpec& spec);

}  // namespace asymserve
