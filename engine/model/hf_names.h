#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace asymserve {

/// The GGUF name of a tensor of a Hugging Face Llama-family checkpoint; nothing when the name is
/// not one of those: "model.layers.3.self_attn.q_proj.weight" is "blk.3.attn_q.weight".
std::optional<std::string> GgufNameOfHf(std::string_view name);

}  // namespace asymserve
