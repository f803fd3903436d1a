#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "engine/backend/cuda/four_words.cuh"
#include "engine/backend/cuda/shared_array.cuh"
#include "engine/base/float16.h"

// The instructions that have no name in CUDA C++: all PTX of the project but that of launch.cuh,
// and on the host their twins of tests/simt. Fragments are laid out as in the PTX ISA, "Matrix
// Fragments for mma.m16n8k16" and "mma.m16n8k32"; all lanes of a warp call them together.

/// Before a loop: nvcc unrolls it, so that arrays that it indexes are registers; or it does not, so
/// that what is loaded ahead does not take all of them.
#ifdef __CUDACC__
#define ASYMSERVE_UNROLL _Pragma("unroll")
#define ASYMSERVE_KEEP_LOOP _Pragma("unroll 1")
#define ASYMSERVE_PRAGMA(text) _Pragma(#text)
#define ASYMSERVE_UNROLL_BY(times) ASYMSERVE_PRAGMA(unroll times)
#else
#define ASYMSERVE_UNROLL
#define ASYMSERVE_KEEP_LOOP
#define ASYMSERVE_UNROLL_BY(times)
#endif

namespace asymserve {

/// d += a b: a [16][16], b [16][8] fp16, d [16][8] fp32.
__device__ __forceinline__ void MmaF16(float (&d)[4], const uint32_t (&a)[4],
                                       const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::MmaF16(d, a, b, d, {__builtin_FILE(), __builtin_LINE()});
#endif
}

/// The same of bfloat16.
__device__ __forceinline__ void MmaBf16(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::MmaBf16(d, a, b, d, {__builtin_FILE(), __builtin_LINE()});
#endif
}

/// d += a b: a [16][32], b [32][8] int8, d [16][8] int32.
__device__ __forceinline__ void MmaS8(int32_t (&d)[4], const uint32_t (&a)[4],
                                      const uint32_t (&b)[2]) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  simt::MmaS8(d, a, b, d, {__builtin_FILE(), __builtin_LINE()});
#endif
}

/// Four matrices of 8 rows of 16 bytes: lane i names row i % 8 of matrix i / 8, which begins at
/// element `index` and at a multiple of 16 bytes. kTransposed: each matrix of 16-bit elements is.
template <bool kTransposed, typename T>
__device__ __forceinline__ void LoadMatrix4(uint32_t (&r)[4], SharedArray<T> array, int64_t index) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(array.address(index)));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
#else
  simt::LoadMatrix4(r, array.Offset(index, 16 / sizeof(T)), kTransposed,
                    {__builtin_FILE(), __builtin_LINE()});
#endif
}

/// Begins to copy 16 bytes to shared memory; both places are multiples of 16 bytes. It belongs to
/// the thread's next CopyCommit; only after CopyWait may the thread, and after a barrier others,
/// read them.
template <typename T>
__device__ __forceinline__ void CopyAsync16(SharedArray<T> array, int64_t index,
                                            const void* source) {
#ifdef __CUDACC__
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(array.address(index)));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(source) : "memory");
#else
  simt::CopyAsync(array.Offset(index, 16 / sizeof(T)), source, 16);
#endif
}
__device__ __forceinline__ void CopyCommit() {
#ifdef __CUDACC__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  simt::Machine::Instance().CommitAsync();
#endif
}
/// Waits for all but the newest kNewest commits.
template <int kNewest>
__device__ __forceinline__ void CopyWait() {
#ifdef __CUDACC__
  asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
#else
  simt::Machine::Instance().WaitAsync(kNewest);
#endif
}

/// base + factor times byte `byte` of a word.
__device__ __forceinline__ uint32_t AddByteTimes(uint32_t word, int byte, uint32_t factor,
                                                 uint32_t base) {
#ifdef __CUDACC__
  return __dp4a(word, factor << (8 * byte), base);
#else
  return base + factor * (word >> (8 * byte) & 255u);
#endif
}

/// word & mask | bits in one instruction: the compiler takes two when both are constants.
__device__ __forceinline__ uint32_t AndOr(uint32_t word, uint32_t mask, uint32_t bits) {
#ifdef __CUDACC__
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(word), "r"(mask), "r"(bits));
  return d;
#else
  return (word & mask) | bits;
#endif
}

/// Where an element of shared memory is, in bytes, for LoadShared of that array.
template <typename T>
__device__ __forceinline__ uint32_t SharedAddress(SharedArray<T> array, int64_t index) {
#ifdef __CUDACC__
  return static_cast<uint32_t>(__cvta_generic_to_shared(array.address(index)));
#else
  (void)array;
  return static_cast<uint32_t>(index * static_cast<int64_t>(sizeof(T)));
#endif
}
/// An element of 8 bytes: an address is a whole instruction less than an index.
template <typename T>
__device__ __forceinline__ T LoadShared(SharedArray<T> array, uint32_t address) {
  static_assert(sizeof(T) == 8);
#ifdef __CUDACC__
  T value;
  auto* words = reinterpret_cast<uint32_t*>(&value);
  asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(words[0]), "=r"(words[1]) : "r"(address));
  return value;
#else
  return array[address / sizeof(T)];
#endif
}

/// Brings the line of an address into the second-level cache.
__device__ __forceinline__ void Prefetch(const void* address) {
#ifdef __CUDACC__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(address));
#else
  (void)address;
#endif
}

// ---- Two 16-bit floats in a register, the first in the lower half -------------------------------

/// Each rounded to nearest even; what does not fit becomes infinite.
__device__ __forceinline__ uint32_t PackHalves(float low, float high) {
#ifdef __CUDACC__
  uint32_t d;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
#else
  return simt::PackHalves(low, high);
#endif
}
/// Both as they are.
__device__ __forceinline__ void UnpackHalves(uint32_t halves, float& low, float& high) {
#ifdef __CUDACC__
  asm("{\n.reg .b16 l, h;\nmov.b32 {l, h}, %2;\ncvt.f32.f16 %0, l;\ncvt.f32.f16 %1, h;\n}"
      : "=f"(low), "=f"(high)
      : "r"(halves));
#else
  low = HalfToFloat(static_cast<uint16_t>(halves));
  high = HalfToFloat(static_cast<uint16_t>(halves >> 16));
#endif
}
/// a + b of each, rounded once.
__device__ __forceinline__ uint32_t AddHalves(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
  uint32_t d;
  asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  return simt::AddHalves(a, b);
#endif
}
/// a b of each, rounded once.
__device__ __forceinline__ uint32_t MultiplyHalves(uint32_t a, uint32_t b) {
#ifdef __CUDACC__
  uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
#else
  return simt::MultiplyHalves(a, b);
#endif
}

}  // namespace asymserve
