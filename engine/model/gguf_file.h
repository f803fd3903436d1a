#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "engine/base/mapped_file.h"
#include "engine/model/gguf.h"
#include "engine/model/weight_file.h"
#include "engine/model/weight_table.h"

namespace asymserve {

/// The tensors of `gguf` as a verified table of the model `config`, pointing into its bytes.
absl::StatusOr<WeightTable> WeightTableFromGguf(const Gguf& gguf, const ModelConfig& config);

/// See OpenWeightFile.
absl::StatusOr<std::unique_ptr<WeightFile>> OpenGgufFile(MappedFile file);

}  // namespace asymserve
