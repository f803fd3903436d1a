#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "engine/base/tensor.h"

// The safetensors container:
//
//   u64 header bytes, little-endian | header, JSON | data
//   header = {"<tensor>": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ..,
//             "__metadata__": {"<key>": "<string>", ..}}
//
// Offsets count from the start of the data, which the tensors cover without holes or overlaps.

namespace asymserve {

struct SafetensorsTensor {
  std::string name;
  std::string dtype_name;
  std::optional<DType> dtype;  // nothing for types we cannot compute with
  std::vector<int64_t> shape;  // slowest first; at most 8 dimensions
  std::span<const std::byte> data;
};

/// The directory of a safetensors file, by offset; views point into `file`. InvalidArgument names
/// the tensor and what is wrong. Memory stays proportional to the header, which may have 16 MiB.
absl::StatusOr<std::vector<SafetensorsTensor>> ParseSafetensors(std::span<const std::byte> file);

}  // namespace asymserve
