#pragma once

#include "absl/status/status.h"
#include <nlohmann/json.hpp>

#include "engine/text/tokenizer_spec.h"

// The steps around the model in a tokenizer.json. Each sets what it says in `spec`, whose kind is
// known; InvalidArgument names a step outside the supported ones.

namespace asymserve {

/// Field "normalizer" and field "pre_tokenizer" of `root`.
absl::Status ReadTextSteps(const nlohmann::json& root, TokenizerSpec& spec);

/// Field "post_processor" of `root`: which special tokens go around a text. Needs spec.tokens.
absl::Status ReadPostProcessor(const nlohmann::json& root, TokenizerSpec& spec);

}  // namespace asymserve
