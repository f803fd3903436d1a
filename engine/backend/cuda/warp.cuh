#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/shared_array.cuh"

namespace asymserve {

inline constexpr int kWarpLanes = 32;
inline constexpr uint32_t kWholeWarp = 0xFFFFFFFFu;

/// The sum of the warp's values, in one order, in every lane.
__device__ __forceinline__ float WarpSum(float value) {
  for (int bits = kWarpLanes / 2; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(kWholeWarp, value, bits);
  }
  return value;
}

/// The largest, NaN not counting.
__device__ __forceinline__ float WarpLargest(float value) {
  for (int bits = kWarpLanes / 2; bits > 0; bits /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kWholeWarp, value, bits));
  }
  return value;
}

/// The largest over a block of whole warps of up to 1024 threads, in every thread. `scratch`: as
/// that of BlockSum.
__device__ __forceinline__ uint32_t BlockLargest(uint32_t value, SharedArray<uint32_t> scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warps = static_cast<int>(blockDim.x) / kWarpLanes;
  value = __reduce_max_sync(kWholeWarp, value);
  if (lane == 0) scratch[static_cast<int>(threadIdx.x) / kWarpLanes] = value;
  __syncthreads();
  return __reduce_max_sync(kWholeWarp, lane < warps ? static_cast<uint32_t>(scratch[lane]) : 0u);
}

/// The sum over a block of whole warps of up to 1024 threads, in every thread. `scratch`: 32
/// floats that nothing else uses; a barrier must come before their next use.
__device__ __forceinline__ float BlockSum(float value, SharedArray<float> scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpLanes;
  const int warps = static_cast<int>(blockDim.x) / kWarpLanes;
  value = WarpSum(value);
  if (lane == 0) scratch[static_cast<int>(threadIdx.x) / kWarpLanes] = value;
  __syncthreads();
  return WarpSum(lane < warps ? static_cast<float>(scratch[lane]) : 0.0f);
}

}  // namespace asymserve
