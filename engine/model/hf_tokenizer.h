#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include <nlohmann/json_fwd.hpp>

#include "engine/text/tokenizer_spec.h"

namespace asymserve {

/// The tokenizer of a Hugging Face folder (a path that ends in '/'): tokenizer.json, with
/// tokenizer_config.json, chat_template.jinja and the end tokens of generation_config.json and
/// `model_config` (the parsed config.json) where present. Filled up to `vocabulary` tokens with
/// unused ones, since embedding tables are often padded. Errors begin with the file's path.
absl::StatusOr<TokenizerSpec> ReadHfTokenizer(const std::string& folder,
                                              const nlohmann::json& model_config,
                                              int32_t vocabulary);

}  // namespace asymserve
