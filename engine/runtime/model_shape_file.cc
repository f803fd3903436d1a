#include "engine/runtime/model_shape_file.h"

#include "engine/base/status.h"
#include "engine/model/shape_file.h"

namespace asymserve {

absl::StatusOr<std::unique_ptr<WeightFile>> MakeModelShapeFile(const ShapeDescription& shape) {
  const absl::StatusOr<DType> dtype = WeightTypeNamed(shape.weight_type);
  if (!dtype.ok()) return Annotate(dtype.status(), "weight_type");
  ModelConfig config;
  config.architecture = "llama";
  config.layers = shape.layers;
  config.width = shape.width;
  config.feed_forward_width = shape.feed_forward_width;
  config.vocabulary = shape.vocabulary;
  config.attention = {shape.heads, shape.kv_heads, shape.head_size};
  config.context_length = shape.context_tokens;
  config.tied_output = shape.tied_output;
  return MakeShapeFile(config, *dtype);
}

}  // namespace asymserve
