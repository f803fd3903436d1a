#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/prepare_qkv.h"
#include "engine/backend/cuda/rotate.cuh"
#include "engine/backend/cuda/warp.cuh"
#include "engine/kv/block_format.h"

namespace asymserve::cuda {
namespace {

constexpr int kWarps = 16;
constexpr int kPairs = kMaxKvHeadSize / 2 / kWarpLanes;  // of a lane at most

/// A block for a token, a warp for a head at a time; lane l has pairs l, l + 32 ... of its head.
__global__ void __launch_bounds__(kWarps* kWarpLanes)
    PrepareQkvKernel(float* qkv, QkvArgs args, const int32_t* positions) {
  AwaitEarlierKernels();
  const int64_t token = blockIdx.x;
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  const int32_t all_heads = args.heads + 2 * args.kv_heads;
  const int32_t size = args.head_size;
  const int32_t half = size / 2;
  float* row = qkv + token * all_heads * size;
  const float* angles =
      args.rope == nullptr ? nullptr : args.rope + int64_t{positions[token]} * size;
  for (int32_t head = static_cast<int32_t>(threadIdx.x) / kWarpLanes; head < all_heads;
       head += kWarps) {
    const bool is_value = head >= args.heads + args.kv_heads;
    if (is_value && args.bias == nullptr) break;  // the last heads, and they stay as they are
    const float* norm = is_value ? nullptr : head < args.heads ? args.q_norm : args.k_norm;
    float* values = row + head * size;
    float first[kPairs];
    float second[kPairs];
    float squares = 0.0f;
    for (int32_t k = 0; k < kPairs; ++k) {
      first[k] = second[k] = 0.0f;
      const int32_t pair = lane + k * kWarpLanes;
      if (pair >= half) continue;
      const RotaryPair at = PairOf(pair, size, args.interleaved);
      first[k] = values[at.first];
      second[k] = values[at.second];
      if (args.bias != nullptr) {
        first[k] += args.bias[head * size + at.first];
        second[k] += args.bias[head * size + at.second];
      }
      squares = fmaf(first[k], first[k], fmaf(second[k], second[k], squares));
    }
    float inverse = 1.0f;
    if (norm != nullptr) {
      inverse = 1.0f / sqrtf(WarpSum(squares) / static_cast<float>(size) + args.norm_epsilon);
    }
    for (int32_t k = 0; k < kPairs; ++k) {
      const int32_t pair = lane + k * kWarpLanes;
      if (pair >= half) continue;
      const RotaryPair at = PairOf(pair, size, args.interleaved);
      if (norm != nullptr) {
        first[k] = first[k] * inverse * norm[at.first];
        second[k] = second[k] * inverse * norm[at.second];
      }
      if (!is_value && angles != nullptr) {
        const Rotated turned = Rotate(first[k], second[k], angles[pair], angles[half + pair]);
        first[k] = turned.first;
        second[k] = turned.second;
      }
      values[at.first] = first[k];
      values[at.second] = second[k];
    }
  }
}

}  // namespace

cudaError_t PrepareQkv(float* qkv, const QkvArgs& args, const int32_t* positions, int64_t tokens,
                       cudaStream_t stream) {
  if (tokens == 0) return cudaSuccess;
  if (args.head_size > kMaxKvHeadSize || args.head_size % 2 != 0) return cudaErrorInvalidValue;
  return Launch<PrepareQkvKernel>(dim3(static_cast<unsigned>(tokens)), dim3(kWarps * kWarpLanes), 0,
                                  stream, qkv, args, positions);
}

}  // namespace asymserve::cuda
