#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "engine/model/weight_file.h"

namespace asymserve {

/// What a plan needs to know of a model that is not at hand.
struct ShapeDescription {
  int32_t layers = 0;
  int32_t width = 0;
  int32_t feed_forward_width = 0;
  int32_t heads = 0;
  int32_t kv_heads = 0;
  int32_t head_size = 0;
  int32_t vocabulary = 0;
  int32_t context_tokens = 0;
  bool tied_output = false;
  std::string weight_type;  // "BF16"
};

/// model/shape_file.h; errors name the key.
absl::StatusOr<std::unique_ptr<WeightFile>> MakeModelShapeFile(const ShapeDescription& shape);

}  // namespace asymserve
