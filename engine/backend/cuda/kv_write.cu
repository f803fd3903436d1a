#include <bit>

#include "engine/backend/cuda/kv_write.h"
#include "engine/backend/cuda/launch.cuh"
#include "engine/backend/cuda/warp.cuh"

namespace asymserve::cuda {
namespace {

constexpr int kWarps = 16;

__device__ void WriteHalf(KvTensor tensor, int32_t size, int32_t slot, const float* x,
                          uint8_t* block) {
  auto* halves = reinterpret_cast<uint16_t*>(block);
  for (int32_t d = static_cast<int32_t>(threadIdx.x) % kWarpLanes; d < size; d += kWarpLanes) {
    halves[HalfIndex(tensor, size, slot, d)] = HalfOrNan(x[d]);
  }
}

__device__ void WriteInt8(KvTensor tensor, int32_t size, int32_t slot, const float* x,
                          uint8_t* block) {
  const int32_t lane = static_cast<int32_t>(threadIdx.x) % kWarpLanes;
  // Magnitudes are ordered as their bits are, infinity and NaN at the end.
  uint32_t largest = 0;
  for (int32_t d = lane; d < size; d += kWarpLanes) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[d]) & 0x7FFFFFFFu;
    largest = magnitude > largest ? magnitude : largest;
  }
  largest = __reduce_max_sync(kWholeWarp, largest);
  const uint16_t half = Int8Scale(std::bit_cast<float>(largest));
  const float scale = HalfToFloat(half);
  for (int32_t d = lane; d < size; d += kWarpLanes) {
    block[Int8Index(tensor, size, slot, d)] = Int8Byte(tensor, x[d], scale);
  }
  if (lane == 0) {
    *reinterpret_cast<uint16_t*>(block + Int8ScaleOffset(size, slot)) = half;
  }
}

/// A block for a token, a warp for a tensor of a head at a time.
__global__ void __launch_bounds__(kWarps* kWarpLanes)
    KvWriteKernel(KvView kv, int32_t layer, const float* qkv, int64_t row_elements,
                  const AttentionRow* rows, const KvPage* pages) {
  AwaitEarlierKernels();
  const int64_t token = blockIdx.x;
  const AttentionRow row = rows[token];
  const KvPage page = pages[row.first_page + row.position / kKvPageTokens];
  const int32_t slot = row.position % kKvPageTokens;
  const int32_t blocks = 2 * kv.kv_heads;
  const float* first = qkv + (token + 1) * row_elements - int64_t{blocks} * kv.head_size;
  for (int32_t i = static_cast<int32_t>(threadIdx.x) / kWarpLanes; i < blocks; i += kWarps) {
    const KvTensor tensor = i < kv.kv_heads ? KvTensor::kKey : KvTensor::kValue;
    uint8_t* block = kv.NearBlock(page, layer, tensor, i % kv.kv_heads);
    const float* x = first + int64_t{i} * kv.head_size;
    if (kv.NearCodec(page) == KvCodec::kInt8) {
      WriteInt8(tensor, kv.head_size, slot, x, block);
    } else {
      WriteHalf(tensor, kv.head_size, slot, x, block);
    }
  }
}

}  // namespace

cudaError_t KvWrite(const KvView& kv, int32_t layer, const float* qkv, int64_t row_elements,
                    const AttentionRow* rows, const KvPage* pages, int64_t tokens,
                    cudaStream_t stream) {
  if (tokens == 0) return cudaSuccess;
  return Launch<KvWriteKernel>(dim3(static_cast<unsigned>(tokens)), dim3(kWarps * kWarpLanes), 0,
                               stream, kv, layer, qkv, row_elements, rows, pages);
}

}  // namespace asymserve::cuda
