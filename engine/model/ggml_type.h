#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "engine/base/tensor.h"

namespace asymserve {

/// The element type that GGUF writes as `type`. Unimplemented names `what` and the type when it is
/// one we cannot compute with.
absl::StatusOr<DType> DTypeFromGgml(uint32_t type, const std::string& what);

}  // namespace asymserve
