#pragma once

#include <cstdint>

#include "engine/base/tensor.h"

namespace asymserve::cuda {

/// A matrix [rows][cols] in device memory: of kF32, kF16 or kBF16 dense, of the types of IsQ4 in
/// the tiles of q4_layout.h.
struct MatrixView {
  const void* data = nullptr;
  DType type = DType::kF32;
  int32_t rows = 0;
  int32_t cols = 0;
};

}  // namespace asymserve::cuda
