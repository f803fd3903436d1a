#pragma once

#include "absl/status/statusor.h"
#include <nlohmann/json_fwd.hpp>

#include "engine/model/model_config.h"

namespace asymserve {

/// The model that a Hugging Face config.json describes: LlamaForCausalLM, MistralForCausalLM,
/// Qwen2ForCausalLM, Qwen3ForCausalLM. Valid in the sense of ValidateModelConfig; errors name the
/// key, Unimplemented that of a feature that would change the arithmetic and that we do not have.
/// `name` stays empty.
absl::StatusOr<ModelConfig> ModelConfigFromHf(const nlohmann::json& config);

}  // namespace asymserve
