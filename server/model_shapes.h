#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

#include "engine/runtime/capacity_plan.h"

namespace asymserve {

/// A model of which only the shapes are known (config/shapes).
struct ModelShapes {
  std::string name;
  std::unique_ptr<WeightFile> file;
  int64_t weight_bytes = 0;  // that the file says; 0: counted from its type
};

/// Reads a YAML file with the keys name, layers, width, feed_forward_width, heads, kv_heads,
/// head_size, vocabulary, context_tokens, tied_output, and weight_type or weight_bytes. All but
/// name and tied_output (false) are required. InvalidArgument: "FILE:LINE: KEY: ..."; unknown keys
/// are refused by name.
absl::StatusOr<ModelShapes> ReadModelShapes(const std::string& path);

/// The same from text; `file` is its name in messages.
absl::StatusOr<ModelShapes> ParseModelShapes(std::string_view text, const std::string& file);

}  // namespace asymserve
