#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/base/tensor.h"

namespace asymserve::cuda {

/// out [rows][cols] = table [any][cols] at `index` [rows]: embedding, and picking rows for logits.
/// All in device memory; the indices are in range. `type`: kF32, kF16, kBF16, or one of IsQ4, whose
/// tables are in the tiles of q4_layout.h and give the values of DequantizeRow. Others are
/// cudaErrorInvalidValue.
cudaError_t GatherRows(float* out, const void* table, DType type, const int32_t* index,
                       int64_t rows, int32_t cols, cudaStream_t stream);

}  // namespace asymserve::cuda
