#pragma once

#include <cuda_runtime.h>

#include <cstdint>

// Rotary embedding by a row of the table [positions][D]: D/2 cosines, then D/2 sines.

namespace asymserve::cuda {

/// The two channels of pair `pair` of a head.
struct RotaryPair {
  int32_t first, second;
};
__device__ __forceinline__ RotaryPair PairOf(int32_t pair, int32_t head_size, bool interleaved) {
  return interleaved ? RotaryPair{2 * pair, 2 * pair + 1} : RotaryPair{pair, head_size / 2 + pair};
}

struct Rotated {
  float first, second;
};
/// Forward, with the fused operations of the CPU backend.
__device__ __forceinline__ Rotated Rotate(float first, float second, float cosine, float sine) {
  return {fmaf(first, cosine, -(second * sine)), fmaf(second, cosine, first * sine)};
}
/// By minus the angle, as keys are before they are encoded: nothing fused (kv/codec.h).
__device__ __forceinline__ Rotated RotateBack(float first, float second, float cosine, float sine) {
  return {first * cosine + second * sine, second * cosine - first * sine};
}

}  // namespace asymserve::cuda
