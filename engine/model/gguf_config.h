#pragma once

#include "absl/status/statusor.h"

#include "engine/model/gguf.h"
#include "engine/model/model_config.h"

namespace asymserve {

/// The model that a GGUF file describes (architectures llama, qwen2, qwen3; Mistral and SmolLM2
/// files call themselves llama). Valid in the sense of ValidateModelConfig; Unimplemented names the
/// key of a feature that would change the arithmetic and that we do not have.
absl::StatusOr<ModelConfig> ModelConfigFromGguf(const Gguf& gguf);

}  // namespace asymserve
