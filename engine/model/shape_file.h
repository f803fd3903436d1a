#pragma once

#include <memory>
#include <string_view>

#include "absl/status/statusor.h"

#include "engine/model/weight_file.h"

namespace asymserve {

/// The types that weights of a model may have, by name as Info(DType) has it: "Q4_1".
/// InvalidArgument lists them.
absl::StatusOr<DType> WeightTypeNamed(std::string_view name);

/// A model of which only the shapes are known: what memory it takes can be counted
/// (Backend::MakeCounter). Its matrices have no data, its vectors are zero, its tokenizer is empty.
/// InvalidArgument when the shapes do not fit (ValidateModelConfig) or a row is no multiple of the
/// type's block.
absl::StatusOr<std::unique_ptr<WeightFile>> MakeShapeFile(const ModelConfig& config, DType dtype);

}  // namespace asymserve
