#pragma once

#include <cuda_runtime.h>

#include "engine/backend/cuda/shared_array.cuh"
#include "engine/kv/block_format.h"

namespace asymserve::cuda {

/// The stored value of a channel of a token of a near block, or of a sealed kHalf or kInt8 one.
__device__ __forceinline__ float NearValue(KvCodec codec, KvTensor tensor, int32_t head_size,
                                           const uint8_t* block, int32_t token, int32_t channel) {
  const auto* halves = reinterpret_cast<const uint16_t*>(block);
  if (codec == KvCodec::kHalf) {
    return HalfToFloat(halves[HalfIndex(tensor, head_size, token, channel)]);
  }
  const float scale = HalfToFloat(halves[Int8ScaleOffset(head_size, token) / 2]);
  return Int8Value(tensor, block[Int8Index(tensor, head_size, token, channel)], scale);
}

}  // namespace asymserve::cuda
