#pragma once

#include "engine/backend/cuda/ptx.cuh"

// Kernels of one warp that try the instructions of ptx.cuh. nvcc compiles them, too.

namespace asymserve {

struct MatrixArrays {
  SharedSlice<uint16_t> a;  // [16][16] or [16][32] bytes, row-major
  SharedSlice<uint16_t> b;  // as the kernel says
};

/// out [16][8] = a [16][16] times b [16][8], b row-major. Fragments by ldmatrix.
template <bool kBrain>
__global__ void MultiplyByLdmatrix(float* out, const uint16_t* a, const uint16_t* b,
                                   MatrixArrays arrays) {
  const SharedArray<uint16_t> sa = Shared("a", arrays.a);
  const SharedArray<uint16_t> sb = Shared("b", arrays.b);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) sa[i] = a[i];
  for (int i = lane; i < 256; i += 32) sb[i] = i < 128 ? b[i] : uint16_t{0};
  __syncwarp();
  uint32_t fa[4];
  LoadMatrix4<false>(fa, sa, (lane % 8 + lane / 8 % 2 * 8) * 16 + lane / 16 * 8);
  uint32_t fb[4];  // rows 0..7 and 8..15 of b, then zeros
  LoadMatrix4<true>(fb, sb, lane * 8);
  const uint32_t two[2] = {fb[0], fb[1]};
  float d[4] = {};
  if constexpr (kBrain) {
    MmaBf16(d, fa, two);
  } else {
    MmaF16(d, fa, two);
  }
  for (int i = 0; i < 4; ++i) {
    out[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
  }
}

/// out [16][8] = a [16][32] times b [32][8] of int8, b by columns: [8][32]. Fragments by hand.
/// kSwapped: with two registers of a in the wrong order.
template <bool kSwapped>
__global__ void MultiplyBytes(int32_t* out, const uint32_t* a, const uint32_t* b) {
  const int lane = static_cast<int>(threadIdx.x);
  const int row = lane / 4;
  const int word = lane % 4;
  const uint32_t fa[4] = {a[row * 8 + word], a[(row + 8) * 8 + word], a[row * 8 + word + 4],
                          a[(row + 8) * 8 + word + 4]};
  const uint32_t swapped[4] = {fa[0], fa[2], fa[1], fa[3]};
  const uint32_t fb[2] = {b[row * 8 + word], b[row * 8 + word + 4]};
  int32_t d[4] = {};
  MmaS8(d, kSwapped ? swapped : fa, fb);
  for (int i = 0; i < 4; ++i) out[(row + i / 2 * 8) * 8 + word * 2 + i % 2] = d[i];
}

enum class CopyFault { kNone, kNoWait, kTooFewWaited, kNoBarrier, kNotCommitted };

/// out [64] = from [64], through shared memory in two asynchronous parts, read by other threads.
template <CopyFault kFault>
__global__ void CopiesAsynchronously(float* out, const float* from, SharedSlice<float> slice) {
  const SharedArray<float> s = Shared("s", slice);
  const int t = static_cast<int>(threadIdx.x);
  if (t < 8) CopyAsync16(s, 4 * t, from + 4 * t);
  CopyCommit();
  if (t < 8) CopyAsync16(s, 32 + 4 * t, from + 32 + 4 * t);
  if (kFault != CopyFault::kNotCommitted) CopyCommit();
  if (kFault != CopyFault::kNoWait) CopyWait<1>();
  if (kFault != CopyFault::kNoBarrier) __syncthreads();
  out[t] = s[31 - t];
  if (kFault == CopyFault::kNone || kFault == CopyFault::kNotCommitted) CopyWait<0>();
  __syncthreads();
  out[32 + t] = s[63 - t];
}

}  // namespace asymserve
