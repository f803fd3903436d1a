#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace asymserve::cuda {

/// What happens to q | k | v of a layer before attention, as QkvParams of backend.h says it; null
/// pointers are skipped. Device memory.
struct QkvArgs {
  int32_t heads = 0, kv_heads = 0, head_size = 0;  // head_size is even
  const float* bias = nullptr;                     // [(heads + 2 kv_heads) head_size]
  const float* q_norm = nullptr;                   // [head_size]
  const float* k_norm = nullptr;                   // [head_size]
  float norm_epsilon = 0;
  const float* rope = nullptr;  // [positions][head_size]
  bool interleaved = false;
};

/// qkv [tokens][(heads + 2 kv_heads) head_size], in place. Head sizes over 256 are
/// cudaErrorInvalidValue.
cudaError_t PrepareQkv(float* qkv, const QkvArgs& args, const int32_t* positions, int64_t tokens,
                       cudaStream_t stream);

}  // namespace asymserve::cuda
