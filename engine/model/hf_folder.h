#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "engine/model/weight_file.h"

namespace asymserve {

/// Opens a Hugging Face folder: config.json; model.safetensors, or model.safetensors.index.json and
/// the files it lists; tokenizer.json; optional tokenizer_config.json, generation_config.json,
/// chat_template.jinja. Errors begin with the path of the file they speak of. See OpenWeightFile.
absl::StatusOr<std::unique_ptr<WeightFile>> OpenHfFolder(const std::string& path);

}  // namespace asymserve
