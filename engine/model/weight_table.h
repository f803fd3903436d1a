#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "absl/status/status.h"

#include "engine/backend/backend.h"
#include "engine/model/model_config.h"

namespace asymserve {

/// The tensors of a model by GGUF name, checked against its configuration.
class WeightTable {
 public:
  /// InvalidArgument when the name is taken.
  absl::Status Add(std::string_view name, const WeightSource& source);
  /// Null when there is none.
  const WeightSource* Find(std::string_view name) const;

  /// Every tensor that the model needs is here with its shape and a type that can be computed with,
  /// and there is no other one. Names the tensor.
  absl::Status Verify(const ModelConfig& config) const;

  int64_t bytes() const;
  /// The type with the most elements in matrices.
  DType main_dtype() const;

 private:
  std::map<std::string, WeightSource, std::less<>> tensors_;
};

}  // namespace asymserve
